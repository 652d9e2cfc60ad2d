"""What a control plane takes of the provider access in its policy, and what it leaves alone."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Rejected, Unavailable, Untrusted
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret
from constellation.crypto.signing import generate_key
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import dump_node_record
from constellation.kube.service_identity import ServiceIdentity
from constellation.providers.openstack.access import Access, Components, dump_access, load_access
from constellation.services.kept_access import KeptAccess
from constellation.services.keyservice.component_folder import ComponentFolder
from constellation.services.keyservice.namespaces import allow
from constellation.services.keyservice.provider_access import AccessKeeper
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.sealed_access import (
    MAX_SEALED_BYTES,
    NONCE_BYTES,
    seal_access,
    unseal_access,
)
from tests.fakes.cluster_machines import OURS
from tests.fakes.join_world import SharedLog, ledger_of, write_control_plane
from tests.fakes.members import node_record

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.crypto.signing import ec
    from constellation.services.joinservice.secrets_on_disk import NodeFiles

CLUSTER = OURS.document.cluster_id
OTHERS = MasterSecret(key=Secret(bytes(32)), salt=Secret(bytes(32)))


def access(secret: bytes = b"sesame") -> Secret:
    return dump_access(
        Access(
            auth_url="https://keystone.example/v3",
            region="RegionOne",
            credential_id="cred",
            credential_secret=Secret(secret),
            certificates="",
            uid="constell-ab12cd",
            groups={},
        )
    )


def sealed(
    secret: bytes = b"sesame", *, master: MasterSecret = OURS.master, cluster_id: bytes = CLUSTER
) -> bytes:
    nonce = hashlib.sha256(secret).digest()[:NONCE_BYTES]
    return seal_access(access(secret), master=master, cluster_id=cluster_id, nonce=nonce)


class Plane:
    """A control plane's disk; its policy has what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.files: NodeFiles = write_control_plane(folder, cluster=OURS)
        kept = self.files.kept_policy()
        self.components = ComponentFolder(folder=folder / "cloud", group=os.getgid())
        self.keeper = AccessKeeper(master=OURS.master, kept=kept, components=self.components)
        self.kept = KeptAccess(state=self.files.state)
        self.is_of("openstack")

    def is_of(self, provider: str) -> None:
        (member,) = ledger_of(self.files, SharedLog()).membership.nodes
        record = node_record(member, cluster_id=CLUSTER, provider=provider)
        (self.files.state / "node.json").write_bytes(dump_node_record(record))

    def obey(self, data: bytes, *, owner: ec.EllipticCurvePrivateKey = OURS.owner) -> None:
        policy = parse_policy(OURS.policy(serial=2).policy)
        policy = dataclasses.replace(policy, provider_access=data)
        self.files.kept_policy().keep_first(sign_policy(policy, owner))


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def test_what_the_owner_sealed_is_taken_and_another_one_after_it(plane: Plane) -> None:
    assert plane.kept.access() is None
    plane.keeper.once()  # the first policy has none
    assert (plane.kept.access(), plane.kept.taken()) == (None, b"")
    for secret in (b"sesame", b"open sesame"):
        plane.obey(sealed(secret))
        plane.keeper.once()
        assert plane.kept.access() == access(secret)
        assert plane.kept.taken() == hashlib.sha256(sealed(secret)).digest()
    path = plane.files.state / "keys/provider/access.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_policy_without_one_leaves_what_there_is(plane: Plane) -> None:
    plane.obey(sealed())
    plane.keeper.once()
    plane.obey(b"")
    plane.keeper.once()
    assert plane.kept.access() == access()


def test_a_crash_between_the_two_files_is_mended(plane: Plane) -> None:
    plane.obey(sealed())
    plane.keeper.once()
    (plane.files.state / "keys/provider/taken").unlink()
    plane.keeper.once()
    assert plane.kept.taken() == hashlib.sha256(sealed()).digest()


def test_a_policy_that_the_owner_did_not_sign_changes_nothing(plane: Plane) -> None:
    plane.obey(sealed(), owner=generate_key())
    with pytest.raises(Untrusted):
        plane.keeper.once()
    assert plane.kept.access() is None


@pytest.mark.parametrize("place", [0, NONCE_BYTES, 100, -1])
def test_a_changed_bit_does_not_open(plane: Plane, place: int) -> None:
    broken = bytearray(sealed())
    broken[place] ^= 1
    plane.obey(bytes(broken))
    with pytest.raises(Untrusted, match="master secret"):
        plane.keeper.once()
    assert plane.kept.access() is None


def test_the_seal_of_another_cluster_does_not_open(plane: Plane) -> None:
    for data in (sealed(master=OTHERS), sealed(cluster_id=bytes(32))):
        plane.obey(data)
        with pytest.raises(Untrusted, match="master secret"):
            plane.keeper.once()
    assert plane.kept.access() is None


@pytest.mark.parametrize("provider", ["aws", "azure", "gcp", "local", "baremetal"])
def test_a_machine_with_an_identity_takes_none(plane: Plane, provider: str) -> None:
    plane.is_of(provider)
    plane.obey(sealed())
    with pytest.raises(FormatError, match="take no access"):
        plane.keeper.once()
    assert plane.kept.access() is None


def test_what_is_no_access_is_not_kept(plane: Plane) -> None:
    nonce = bytes(NONCE_BYTES)
    other = seal_access(Secret(b"{}"), master=OURS.master, cluster_id=CLUSTER, nonce=nonce)
    plane.obey(other)
    with pytest.raises(FormatError, match="OpenStack access"):
        plane.keeper.once()
    assert plane.kept.access() is None


def test_a_node_that_does_not_know_its_provider_yet_waits(plane: Plane) -> None:
    (plane.files.state / "node.json").unlink()
    plane.obey(sealed())
    with pytest.raises(Unavailable):
        plane.keeper.once()


def test_sizes_are_bounded_on_both_sides(plane: Plane) -> None:
    def seal(data: bytes) -> bytes:
        nonce = bytes(NONCE_BYTES)
        return seal_access(Secret(data), master=OURS.master, cluster_id=CLUSTER, nonce=nonce)

    assert len(seal(bytes(MAX_SEALED_BYTES - 28))) == MAX_SEALED_BYTES
    for data in (b"", bytes(MAX_SEALED_BYTES - 27)):
        with pytest.raises(FormatError):
            seal(data)
    for size in (0, 28, MAX_SEALED_BYTES + 1):
        with pytest.raises(FormatError):
            unseal_access(bytes(size), master=OURS.master, cluster_id=CLUSTER)
    with pytest.raises(FormatError, match="provider access of"):
        plane.obey(bytes(MAX_SEALED_BYTES + 1))


@pytest.mark.parametrize("role", NodeRole)
def test_nobody_gets_the_key_over_the_network(role: NodeRole) -> None:
    caller = ServiceIdentity(cluster_id=CLUSTER, role=role, name="anybody")
    with pytest.raises(Rejected, match="provider-access"):
        allow(caller, key_id="provider-access", size_bytes=32)


async def test_the_clouds_components_read_their_part_of_what_is_kept(plane: Plane) -> None:
    theirs = Components(
        credential_id="components",
        credential_secret=Secret(b"theirs"),
        subnet_id="subnet",
        floating_network_id="",
    )
    wanted = dataclasses.replace(load_access(access()), components=theirs)
    data = seal_access(
        dump_access(wanted), master=OURS.master, cluster_id=CLUSTER, nonce=bytes(NONCE_BYTES)
    )
    plane.obey(data)
    conf = plane.files.state.parent / "cloud/cloud.conf"
    watch = asyncio.create_task(plane.keeper.run())
    try:
        for _ in range(400):
            if conf.exists():
                break
            await asyncio.sleep(0.05)
        assert "theirs" in conf.read_text()
        # a policy that cannot be read keeps them from nothing
        plane.obey(sealed(b"sesame", master=OTHERS))
        conf.unlink()
        fresh = ComponentFolder(folder=conf.parent, group=os.getgid())
        dataclasses.replace(plane.keeper, components=fresh).show()
        assert "theirs" in conf.read_text()
    finally:
        watch.cancel()
