import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.kube import membership as members
from constellation.kube.membership import NodeRole
from constellation.kube.node_names import node_name
from constellation.kube.peers import (
    SignedPeers,
    load_peers,
    peers_of,
    sign_peers,
    verify_peers,
)
from constellation.kube.placement import allocate
from tests.fakes.members import CLUSTER_ID, digest, founded

KEY = signing.generate_key()
PUBLIC = signing.spki(KEY.public_key())


def test_it_survives_being_written_and_read() -> None:
    membership = founded()
    assert members.load_membership(decode.dump(membership), what="test") == membership


@given(st.binary(max_size=200))
def test_junk_is_a_format_error(junk: bytes) -> None:
    for load in (members.load_membership, load_peers):
        with pytest.raises(FormatError):
            load(junk, what="junk")


@pytest.mark.parametrize(
    "field", ["name", "address", "mesh_address", "pod_cidr", "disk_uuid", "mesh_public_key"]
)
def test_two_members_never_share(field: str) -> None:
    membership = founded()
    (first,) = membership.nodes
    other = dataclasses.replace(
        first,
        name="control-plane-default-1",
        address="10.42.1.11",
        mesh_address="10.43.0.2",
        pod_cidr="10.244.1.0/24",
        disk_uuid=digest("other")[:16],
        mesh_public_key=digest("other"),
    )
    members.reserve(membership, other, expires_at=1)
    with pytest.raises(FormatError, match="control-plane-default-0" if field == "name" else field):
        members.check(
            dataclasses.replace(
                membership,
                retired=(dataclasses.replace(other, **{field: getattr(first, field)}),),
                fenced_disks=(first.disk_uuid,) if field == "name" else (),
            )
        )


@pytest.mark.parametrize(
    "change",
    [
        {"pod_cidr": "10.99.0.0/24"},
        {"pod_cidr": "10.244.0.0/25"},
        {"pod_cidr": "pods"},
        {"mesh_address": "10.42.0.9"},
        {"address": "here"},
        {"role": NodeRole.WORKER},
        {"group": "guests"},
        {"attester_id": b"short"},
    ],
)
def test_what_is_out_of_range_is_a_format_error(change: dict[str, object]) -> None:
    (first,) = founded().nodes
    with pytest.raises(FormatError):
        members.found(founded().settings, dataclasses.replace(first, **change))  # type: ignore[arg-type] - field by field


def test_a_fenced_disk_belongs_to_nobody() -> None:
    membership = founded()
    with pytest.raises(FormatError, match="fenced"):
        members.check(
            dataclasses.replace(membership, fenced_disks=(membership.nodes[0].disk_uuid,))
        )


def test_names_carry_the_role_once() -> None:
    assert node_name(NodeRole.WORKER, "worker_default", 3) == "worker-default-3"
    assert node_name(NodeRole.WORKER, "gpu", 0) == "worker-gpu-0"
    assert node_name(NodeRole.CONTROL_PLANE, "main", 1) == "control-plane-main-1"


def test_a_name_is_given_once_in_a_clusters_life() -> None:
    membership = founded()
    group = membership.settings.groups[0]
    (first,) = membership.nodes

    def another(name: str, index: int) -> members.Member:
        return dataclasses.replace(
            first,
            name=name,
            address=f"10.42.1.{20 + index}",
            mesh_address=f"10.43.0.{20 + index}",
            pod_cidr=f"10.244.{20 + index}.0/24",
            disk_uuid=digest(f"disk {index}")[:16],
            mesh_public_key=digest(f"mesh {index}"),
        )

    for index in (1, 2, 3):
        place = allocate(membership, group=group)
        assert place.name == f"control-plane-default-{index}"
        member = another(place.name, index)
        membership = members.reserve(membership, member, expires_at=1)
        again = members.reserve(membership, member, expires_at=2)
        assert again.names_given == membership.names_given, "the same node, asking again"
        end = members.lapse if index == 1 else members.remove
        live = membership if index == 1 else members.settle(membership, place.name)
        membership = members.forget(end(live, place.name), place.name)
    assert members.load_membership(decode.dump(membership), what="test") == membership
    for name in ("control-plane-default-3", "control-plane-default-0x", "worker-default-9"):
        with pytest.raises(FormatError, match=r"given before|is no name of"):
            members.reserve(membership, another(name, 9), expires_at=1)


def test_a_log_of_before_there_was_a_list_of_names_goes_on() -> None:
    before = dataclasses.replace(founded(), names_given=())
    kept = decode.dump(before).replace(b'"names_given":[],', b"")
    assert b"names_given" not in kept
    membership = members.load_membership(kept, what="base.json")
    place = allocate(membership, group=membership.settings.groups[0])
    assert place.name == "control-plane-default-1", "the first one's name is taken"


@pytest.mark.parametrize("change", [members.settle, members.lapse, members.remove, members.forget])
def test_nobody_is_changed_who_is_not_there(change: object) -> None:
    with pytest.raises(FormatError):
        change(founded(), "worker-default-7")  # type: ignore[operator] - the four functions


def signed() -> SignedPeers:
    return sign_peers(dataclasses.replace(founded(), peers_serial=7), join_private_key=KEY)


def verify(peers: SignedPeers, *, minimum_serial: int = 7) -> None:
    verify_peers(
        peers, join_public_key=PUBLIC, cluster_id=CLUSTER_ID, minimum_serial=minimum_serial
    )


def test_a_signed_peer_list_holds_after_the_disk() -> None:
    peers = load_peers(decode.dump(signed()), what="peers.json")
    verify(peers)
    assert peers.peers == peers_of(founded())


def test_an_older_peer_list_is_a_replay() -> None:
    with pytest.raises(Untrusted, match="serial 7, expected at least 8"):
        verify(signed(), minimum_serial=8)


@pytest.mark.parametrize(
    "change",
    [{"serial": 8}, {"peers": ()}, {"signature": b"no signature"}],
)
def test_a_changed_peer_list_is_untrusted(change: dict[str, object]) -> None:
    with pytest.raises(Untrusted):
        verify(dataclasses.replace(signed(), **change))  # type: ignore[arg-type] - field by field
