"""The owner gives control planes that run another credential for their cloud: real aTLS and TLS.

Three JoinServices with TPMs, the part of KeyService that opens what the policy has, and clients of
OpenStack that read what lies on the disks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from constellation.base import clock
from constellation.base.errors import Rejected, Unavailable, Untrusted
from constellation.base.rest import Denied
from constellation.base.secret import Secret
from constellation.cluster.current_policy import current_policy, next_serial
from constellation.cluster.node_access import access_differs, follow_access, with_access
from constellation.config.state import Image, read_state
from constellation.crypto.derive import MasterSecret
from constellation.crypto.signing import generate_key
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import dump_node_record
from constellation.kube.service_identity import ServiceIdentity
from constellation.providers.openstack.access import dump_access, load_access
from constellation.providers.openstack.metadata import MetadataService, OpenStackMetadata
from constellation.providers.openstack.node_groups import KeptNodeGroups
from constellation.services.joinservice import server as server_module
from constellation.services.kept_access import KeptAccess
from constellation.services.keyservice import provider_access
from constellation.services.keyservice.component_folder import ComponentFolder
from constellation.services.keyservice.namespaces import allow
from constellation.services.keyservice.provider_access import AccessKeeper
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.policy_acceptance import OfferedPolicy
from constellation.trust.sealed_access import NONCE_BYTES, seal_access
from tests.fakes.cluster_machines import release_of
from tests.fakes.members import node_record
from tests.fakes.openstack import FakeOpenStack
from tests.fakes.policy_world import NEXT, Owned, Plane, owned_cluster
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.cluster.context import Context
    from constellation.providers.protocols import Desired

NEW = b"b3BlbiBzZXNhbWU="
"""The new credential's secret as it lies in a file."""


@dataclass(kw_only=True)
class World:
    """A cluster on OpenStack whose control planes have `cred`; `given`: what the conf names."""

    owned: Owned
    fake: FakeOpenStack
    folder: Path
    given: str = "cred"

    @property
    def context(self) -> Context:
        async def access(uid: str, desired: Desired) -> Secret:
            assert uid == "test"
            wanted = self.fake.access(self.given)
            image = desired.image_path
            groups = {n: dataclasses.replace(t, image_id=image) for n, t in wanted.groups.items()}
            return dump_access(dataclasses.replace(wanted, groups=groups))

        supplies = _Supplies(cache=self.folder)
        return dataclasses.replace(self.owned.context, node_access=access, supplies=supplies)  # type: ignore[arg-type] # nothing is made

    async def follow(self) -> None:
        self.owned.state = await follow_access(self.context, self.owned.state)

    def kept(self, plane: Plane) -> KeptAccess:
        return KeptAccess(state=plane.files.state)

    def credentials(self) -> list[str]:
        found = [self.kept(p).access() for p in self.owned.planes]
        return [load_access(a).credential_id for a in found if a is not None]

    def keeper(self, plane: Plane) -> AccessKeeper:
        """Give what KeyService of a control plane does with its policy."""
        kept = plane.files.kept_policy()
        components = ComponentFolder(folder=plane.files.state / "cloud", group=os.getgid())
        return AccessKeeper(master=self.owned.cluster.master, kept=kept, components=components)

    def operators(self, plane: Plane) -> KeptNodeGroups:
        path = plane.files.state / "keys/provider/access.json"
        return KeptNodeGroups(access_file=path, document=plane.files.node_document)

    def sealed(self, credential: str, *, master: MasterSecret | None = None) -> bytes:
        return seal_access(
            dump_access(self.fake.access(credential)),
            master=master or self.owned.cluster.master,
            cluster_id=self.owned.cluster.document.cluster_id,
            nonce=os.urandom(NONCE_BYTES),
        )

    def policy_with(self, sealed: bytes) -> OfferedPolicy:
        policy = current_policy(self.owned.state)
        serial = next_serial(self.owned.state, policy)
        policy = dataclasses.replace(policy, serial=serial, provider_access=sealed)
        return OfferedPolicy(signed=sign_policy(policy, self.owned.cluster.owner))


@dataclass(frozen=True, kw_only=True)
class _Supplies:
    cache: Path


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    monkeypatch.setattr(provider_access, "_LOOK_EVERY_S", 0.05)
    fake = FakeOpenStack()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(fake.serving())
        owned = await stack.enter_async_context(owned_cluster(tmp_path))
        image = Image(path="11111111-0000-4000-8000-000000000001", release=release_of(NEXT))
        owned.state = dataclasses.replace(owned.state, image=image)
        made = World(owned=owned, fake=fake, folder=tmp_path)
        tasks = []
        for plane in owned.planes:
            member = next(m for m in plane.ledger.membership.nodes if m.name == plane.name)
            cluster_id = owned.cluster.document.cluster_id
            record = node_record(member, cluster_id=cluster_id, provider="openstack")
            (plane.files.state / "node.json").write_bytes(dump_node_record(record))
            folder = plane.files.state / "keys/provider"
            folder.mkdir(mode=0o700)
            (folder / "access.json").write_bytes(dump_access(fake.access()).reveal())
            tasks.append(asyncio.create_task(made.keeper(plane).run()))
        yield made
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_every_control_plane_uses_the_new_credential_and_the_old_one_may_go(
    world: World,
) -> None:
    operators = [world.operators(p) for p in world.owned.planes]
    assert [len(await o.list_instances()) for o in operators] == [2, 2, 2]
    source = MetadataService(url=world.fake.metadata.url)
    path = world.owned.planes[2].files.state / "keys/provider/access.json"
    admission = OpenStackMetadata(source=source, access=path)
    assert len(await admission.peers()) == 2

    world.given = "cred2"
    assert await access_differs(world.context, world.owned.state)
    await world.follow()
    assert world.credentials() == ["cred2"] * 3
    world.fake.gone.add("cred")
    # the very clients that had the old one
    assert [len(await o.list_instances()) for o in operators] == [2, 2, 2]
    assert len(await admission.peers()) == 2
    assert {path.stat().st_mode & 0o777 for path in _files(world, "access.json")} == {0o600}
    # again: nothing is signed, and nothing differs
    serial = world.owned.state.policy_serial
    await world.follow()
    assert world.owned.state.policy_serial == serial
    assert not await access_differs(world.context, world.owned.state)


async def test_an_expired_credential_is_what_replacing_is_for(world: World) -> None:
    operator = world.operators(world.owned.planes[0])
    world.fake.gone.add("cred")
    with pytest.raises(Denied) as caught:
        await operator.list_instances()
    assert "constellation apply" in caught.value.hint
    world.given = "cred2"
    await world.follow()
    assert len(await operator.list_instances()) == 2


async def test_the_secret_lies_on_control_planes_disks_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.given = "cred2"
    await world.follow()
    holders = [
        path for path in world.folder.rglob("*") if path.is_file() and NEW in path.read_bytes()
    ]
    assert sorted(holders) == sorted(_files(world, "access.json"))
    kept = read_state(world.owned.workspace.state)
    assert kept is not None
    assert kept.policy is not None
    assert parse_policy(kept.policy.policy).provider_access  # as the workstation has it, sealed
    assert not [r for r in caplog.records if "sesame" in str(r.__dict__) or "c2Vz" in str(r)]
    for role in NodeRole:
        caller = ServiceIdentity(
            cluster_id=world.owned.cluster.document.cluster_id, role=role, name="anybody"
        )
        with pytest.raises(Rejected, match="provider-access"):
            allow(caller, key_id="provider-access", size_bytes=32)


async def test_a_control_plane_that_has_not_taken_it_is_named(world: World) -> None:
    world.owned.wait_s, world.given = 1.0, "cred2"
    late = world.owned.planes[1]
    (late.files.state / "node.json").rename(late.files.state / "later.json")
    with pytest.raises(Unavailable, match=f"{late.name}: its KeyService has not taken"):
        await world.follow()
    world.owned.state = read_state(world.owned.workspace.state) or world.owned.state
    (late.files.state / "later.json").rename(late.files.state / "node.json")
    world.owned.wait_s = 5.0
    await world.follow()
    assert world.credentials() == ["cred2"] * 3


async def test_what_another_master_secret_sealed_changes_nothing(world: World) -> None:
    other = MasterSecret(key=Secret(bytes(32)), salt=Secret(bytes(32)))
    world.owned.wait_s = 0.3
    with pytest.raises(Unavailable, match="has not taken the provider access"):
        await world.owned.hand_over(world.policy_with(world.sealed("cred2", master=other)))
    assert world.credentials() == ["cred"] * 3


async def test_only_the_owner_hands_one_over(world: World) -> None:
    forged = parse_policy(world.policy_with(world.sealed("cred2")).signed.policy)
    with pytest.raises(Untrusted):
        await world.owned.hand_over(OfferedPolicy(signed=sign_policy(forged, generate_key())))
    assert world.credentials() == ["cred"] * 3


async def test_an_older_policy_does_not_bring_the_old_credential_back(world: World) -> None:
    await world.follow()
    old = world.owned.state.policy
    assert old is not None
    world.given = "cred2"
    await world.follow()
    with pytest.raises(Untrusted, match="serial"):
        await world.owned.hand_over(OfferedPolicy(signed=old))
    await asyncio.sleep(0.2)
    assert world.credentials() == ["cred2"] * 3


async def test_machines_of_a_roll_out_are_made_of_its_image(world: World) -> None:
    state = world.owned.state
    assert state.image is not None
    following = dataclasses.replace(
        state, image=dataclasses.replace(state.image, path="the-next-image")
    )
    policy = await with_access(world.context, following, current_policy(state))
    policy = dataclasses.replace(policy, serial=2)
    await world.owned.hand_over(
        OfferedPolicy(signed=sign_policy(policy, world.owned.cluster.owner))
    )
    for plane in world.owned.planes:
        access = world.kept(plane).access()
        assert access is not None
        images = {t.image_id for t in load_access(access).groups.values()}
        assert images == {"the-next-image"}


def _files(world: World, name: str) -> list[Path]:
    return [p.files.state / "keys/provider" / name for p in world.owned.planes]
