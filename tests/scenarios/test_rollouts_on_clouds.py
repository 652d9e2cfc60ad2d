"""A roll-out whose machines come and go by each cloud's own client, against that cloud's fake."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from constellation.providers.azure.node_groups import AzureNodeGroups
from constellation.providers.gcp.node_groups import GcpNodeGroups
from constellation.providers.openstack.node_groups import OpenStackNodeGroups
from constellation.providers.protocols import Instance, Role
from tests.fakes.arm import FakeAzure
from tests.fakes.gce import FakeGce
from tests.fakes.openstack import FakeOpenStack
from tests.fakes.rollout_world import NEW_IMAGE, RolloutWorld, _Machine
from tests.scenarios.test_rollouts import Drill, image_only

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.providers.protocols import NodeGroups
    from constellation.services.operator.facts import Facts


@dataclass(kw_only=True)
class OnCloud(RolloutWorld):
    """A cluster whose provider is a fake cloud, asked by the client that control planes have."""

    fake: Any
    client: NodeGroups

    async def look(self) -> Facts:
        # metadata answers for the machine on which the leader runs
        self.fake.me = self._by_name(self.me).instance.instance_id
        facts = await super().look()
        listed = tuple(_here(i) for i in await self.client.list_instances())
        return dataclasses.replace(facts, instances=listed)

    async def create_machine(self, group: str) -> str:
        self._call(f"create {group}")
        instance = _here(await self.client.create(group.replace("-", "_")))
        machine = _Machine(instance=instance, image=self.provider_image)
        self._machines[instance.instance_id] = machine
        return instance.instance_id

    async def delete_machine(self, instance_id: str) -> None:
        await super().delete_machine(instance_id)
        await self.client.delete(instance_id)

    def _machine(self, group: str, role: Role) -> _Machine:
        instance_id, address = _add(self.fake, group.replace("-", "_"), role)
        instance = Instance(
            instance_id=instance_id, group=group, role=role, address=address, state="running"
        )
        machine = _Machine(instance=instance, image=self.provider_image)
        self._machines[instance_id] = machine
        return machine


def _here(instance: Instance) -> Instance:
    """Name the group as the rest of this world does."""
    return dataclasses.replace(instance, group=instance.group.replace("_", "-"))


def _add(fake: Any, group: str, role: Role) -> tuple[str, str]:
    if isinstance(fake, FakeAzure):
        name = fake.add(f"{fake.uid}-{group.replace('_', '-')}")
        scale_set, _, number = name.rpartition("_")
        return name, fake.sets[scale_set].vms[number].address
    if isinstance(fake, FakeGce):
        vm = fake.add(group, f"{len(fake.vms):04x}")
        return vm.name, vm.address
    server = fake.add(group, str(role))
    return server.server_id, server.address


@contextlib.asynccontextmanager
async def on_cloud(cloud: str, *, planes: int, workers: int) -> AsyncIterator[OnCloud]:
    fake: Any = {"azure": FakeAzure, "gcp": FakeGce, "openstack": FakeOpenStack}[cloud]()
    async with fake.serving():
        client: NodeGroups
        if isinstance(fake, FakeAzure):
            for scale_set in fake.sets.values():
                scale_set.vms.clear()
            client = AzureNodeGroups(
                imds_url=fake.imds.url, arm_url=fake.arm.url, pause_s=0.001, drain_s=0.001
            )
        elif isinstance(fake, FakeGce):
            fake.vms.clear()
            client = GcpNodeGroups(
                metadata_url=fake.metadata_url, compute_url=fake.compute_url, pause_s=0.001
            )
        else:
            for things in (fake.servers, fake.ports, fake.members):
                things.clear()
            client = OpenStackNodeGroups(
                fake.access(), node_document=fake.user_data, pause_s=0.001, drain_s=0.001
            )
        yield OnCloud.running(control_planes=planes, workers=workers, fake=fake, client=client)


def _exists(fake: Any) -> set[str]:
    if isinstance(fake, FakeAzure):
        return {f"{name}_{number}" for name, s in fake.sets.items() for number in s.vms}
    return set(fake.vms if isinstance(fake, FakeGce) else fake.servers)


@pytest.mark.parametrize("cloud", ["azure", "gcp", "openstack"])
async def test_a_new_image_replaces_every_machine_of_the_cloud(cloud: str) -> None:
    async with on_cloud(cloud, planes=1, workers=1) as world:
        before = world.instance_ids()
        assert _exists(world.fake) == before
        image_only(world)
        await Drill(world, settle_s=0.001).until_idle()
        assert world.broken == []
        assert world.images() == {NEW_IMAGE}
        assert not before & world.instance_ids()
        assert _exists(world.fake) == world.instance_ids()
        assert _still_balanced(world.fake) == []


def _still_balanced(fake: Any) -> list[str]:
    """Name machines that were removed while the load balancer still led to them."""
    if isinstance(fake, FakeAzure):
        return [name for name, balanced in fake.deleted if balanced]
    if isinstance(fake, FakeOpenStack):
        return [event for event in fake.events if event.endswith("while balanced")]
    return []
