import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.kube import membership as members
from constellation.kube.membership import NodeRole, node_name
from constellation.kube.peers import (
    SignedPeers,
    load_peers,
    peers_of,
    sign_peers,
    verify_peers,
)
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
