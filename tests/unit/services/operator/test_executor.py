"""What a look shows may be older than what is done: nothing is done twice because of that."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from constellation.base.errors import Unavailable
from constellation.kube.cluster_release import dump_group
from constellation.kube.rollout import CreateNode, Health, NodeGroup, NodeRole, RemoveNode
from constellation.providers.protocols import Instance, Role
from constellation.services.operator.executor import Executor
from constellation.services.operator.health import remember, views
from constellation.services.operator.loop import Operator
from constellation.services.operator.removal import Pace
from tests.fakes.rollout_world import WORKERS, RolloutWorld

if TYPE_CHECKING:
    from constellation.services.operator.facts import Facts

WORKER = "worker-default-0"


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def executor(world: RolloutWorld, *, at_s: list[float]) -> Executor:
    return Executor(world, pace=Pace(notice_s=0, again_s=0), now_s=lambda: at_s[0])


async def test_what_ended_after_the_look_began_is_not_begun_again() -> None:
    world = RolloutWorld.running(control_planes=1, workers=2)
    group = NodeGroup(name=WORKERS, role=NodeRole.WORKER, size=3)
    world.groups[WORKERS] = group
    assert dump_group(group)["size"] == 3
    does = executor(world, at_s=[0.0])
    does.begin_look()
    facts = await world.look()
    nodes = views(facts, remember(None, facts, now_s=0.0))
    actions = (RemoveNode(node=WORKER), CreateNode(group=WORKERS))
    does.start(actions, facts, nodes)
    world.turn()
    while does.busy:
        await settle()
        world.turn()
    log = list(world.log)
    assert log.count(f"delete node {WORKER}") == log.count(f"create {WORKERS}") == 1
    does.start(actions, facts, nodes)  # planned from the look of before
    await settle()
    assert world.log == log
    does.begin_look()
    does.start((CreateNode(group=WORKERS),), await world.look(), nodes)
    await settle()
    assert world.log.count(f"create {WORKERS}") == 2


async def test_what_failed_waits_before_it_is_tried_again_and_says_why() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1)
    at_s = [0.0]
    does = executor(world, at_s=at_s)
    facts = await world.look()
    nodes = views(facts, remember(None, facts, now_s=0.0))
    for now_s, tries in ((0.0, 1), (1.0, 1), (6.0, 2)):
        at_s[0] = now_s
        does.begin_look()
        does.start((CreateNode(group="nobody"),), facts, nodes)
        await settle()
        assert world.log.count("create nobody") == tries
        assert does.failures() == {"create nobody 0": "there is no group nobody"}
    await does.close()
    assert does.failures() == {}


async def test_a_bug_is_said_and_not_repeated_without_end() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1)
    does = executor(world, at_s=[0.0])
    facts = await world.look()
    nodes = views(facts, remember(None, facts, now_s=0.0))
    world.die_at = world.calls + 1  # not an error of ours
    for _ in range(3):
        does.begin_look()
        does.start((CreateNode(group=WORKERS),), facts, nodes)
        await settle()
    assert not does.busy
    assert does.failures() == {f"create {WORKERS} 0": f"Killed('create {WORKERS}')"}


class SlowProvider(RolloutWorld):
    """Takes its time to delete a machine; `begun` counts how often it was asked to."""

    begun = 0

    async def delete_machine(self, instance_id: str) -> None:
        self.begun += 1
        for _ in range(200):
            await asyncio.sleep(0)
        await super().delete_machine(instance_id)


async def test_what_waits_for_the_pods_of_a_dead_node_ends_and_its_removal_is_begun_once() -> None:
    world = SlowProvider.running(control_planes=1, workers=2)
    world.budget_blocks = True
    does = executor(world, at_s=[0.0])

    async def look() -> None:
        does.begin_look()
        facts = await world.look()
        nodes = views(facts, remember(None, facts, now_s=0.0))
        seen = tuple(
            dataclasses.replace(n, health=health) if n.name == WORKER else n for n in nodes
        )
        does.start((RemoveNode(node=WORKER),), facts, seen)
        await settle()

    health = Health.READY
    await look()
    assert does.steps()[WORKER].startswith("drain")
    world.power_off(WORKER)
    health = Health.DEAD
    for _ in range(3):
        await look()
    assert does.steps() == {WORKER: "machine"}, "the removal of a dead node alone goes on"
    while does.busy:
        await settle()
    assert world.begun == 1
    assert WORKER not in world.names()


class HangingWorld:
    """A world whose next look gets no answer, as of an API server that is cut off."""

    def __init__(self, world: RolloutWorld) -> None:
        self._world, self.hangs = world, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    async def look(self) -> Facts:
        if self.hangs:
            await asyncio.Event().wait()
        return await self._world.look()


class Leads:
    async def leads(self) -> bool:
        return True


class LeadsNoMore:
    async def leads(self) -> bool:
        raise Unavailable("the API does not answer")


class Shut:
    async def once(self) -> None:
        return

    async def close(self) -> None:
        return


async def test_who_cannot_renew_the_lease_ends_its_work_although_its_look_hangs() -> None:
    world, at_s = RolloutWorld.running(control_planes=3, workers=2), [0.0]
    group = NodeGroup(name=WORKERS, role=NodeRole.WORKER, size=1)
    world.groups[WORKERS] = group
    seen = HangingWorld(world)
    operator = Operator(
        world=seen,  # type: ignore[arg-type] # it passes on
        leadership=Leads(),
        own=Shut(),  # type: ignore[arg-type] # no orders
        door=Shut(),
        pace=Pace(notice_s=3600),
        now_s=lambda: at_s[0],
    )
    await operator.renew()
    for _ in range(3):
        await operator.once()
        await settle()
    assert operator.busy, "a worker is being removed"
    await operator.stand_down()
    assert operator.busy, "it leads still"
    seen.hangs, operator.leadership = True, LeadsNoMore()
    running = asyncio.create_task(operator.run())
    await settle()
    assert operator.busy
    at_s[0] = 11.0  # others may take the lease from second 15 on
    async with asyncio.timeout(5):
        while operator.busy:  # noqa: ASYNC110 - looked at, not told
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not any(entry.startswith("delete") for entry in world.log)


class PointedWorld(HangingWorld):
    """Somebody's own EndpointSlice names the node, and nobody takes it away."""

    async def endpoints_on(self, node: str) -> int:
        assert node == WORKER
        return 1


async def test_an_endpoint_that_nobody_ends_does_not_keep_a_node_for_ever() -> None:
    world = RolloutWorld.running(control_planes=1, workers=2)
    pace = Pace(notice_s=0, again_s=0, endpoints_s=0.3)
    does = Executor(PointedWorld(world), pace=pace, now_s=lambda: 0.0)  # type: ignore[arg-type] # it passes on
    facts = await world.look()
    nodes = views(facts, remember(None, facts, now_s=0.0))
    does.start((RemoveNode(node=WORKER),), facts, nodes)
    async with asyncio.timeout(5):
        while does.busy:
            await settle()
            world.turn()
    assert f"delete node {WORKER}" in world.log


async def test_a_machine_that_never_joined_takes_no_others_etcd_member_along() -> None:
    """What the provider lists may be a lie: a machine with the address of a control plane."""
    world = RolloutWorld.running(control_planes=3, workers=1)
    genuine = await world.look()
    plane = next(m for m in genuine.membership.nodes if m.role is NodeRole.CONTROL_PLANE)
    false = Instance(
        instance_id="i-false",
        group=plane.group,
        role=Role.CONTROL_PLANE,
        address=plane.address,
        state="running",
    )
    facts = dataclasses.replace(genuine, instances=(*genuine.instances, false))
    memory = remember(None, facts, now_s=0.0)
    for n in range(1, 40):
        memory = remember(memory, facts, now_s=n * 10.0)
    nodes = views(facts, memory)
    assert next(n for n in nodes if n.name == "i-false").health is Health.FAILED
    does = executor(world, at_s=[0.0])
    does.start((RemoveNode(node="i-false"),), facts, nodes)
    while does.busy:
        await settle()
    assert [w for w in world.log if w.startswith("etcd without")] == []
