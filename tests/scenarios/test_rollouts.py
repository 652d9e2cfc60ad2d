"""Roll-outs to their end on a cluster that keeps the rules; killed at every call, they go on."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from constellation.kube.cluster_release import Phase
from constellation.services.operator.health import DEAD_S, GAP_S, START_S
from constellation.services.operator.loop import Operator
from constellation.services.operator.own_node import OwnNode
from constellation.services.operator.removal import Pace
from tests.fakes.rollout_world import (
    CONTROL,
    NEW_IMAGE,
    OLD_IMAGE,
    WORKERS,
    Killed,
    RolloutWorld,
    policy,
)

OLD, NEW = "v1.36.1", "v1.36.2"
LOOK_S = 5.0


class NoDoor:
    """No autoscaler here."""

    async def once(self) -> None:
        raise AssertionError("nobody opens it")

    async def close(self) -> None:
        pass


class Drill:
    """Drives operators: one leads, and when it leaves or dies another does."""

    def __init__(self, world: RolloutWorld, *, settle_s: float = 0.0) -> None:
        self.world, self.time_s = world, 1000.0
        self._settle_s = settle_s
        self._operator: Operator | None = None

    async def leads(self) -> bool:
        return True

    async def mine(self) -> tuple[None, None]:
        return None, None

    async def report(self, _: object) -> None:
        raise AssertionError("no order, no report")

    async def turn(self, *, after_s: float = LOOK_S) -> None:
        """Let one look and what it starts happen, then time pass."""
        await self._elect()
        assert self._operator is not None
        try:
            await self._operator.renew()
            await self._operator.once()
            for _ in range(60):
                await asyncio.sleep(self._settle_s)
        except Killed:
            pass
        if self.world.die_at is not None and self.world.calls >= self.world.die_at:
            await self._operator.close()
            self._operator, self.world.die_at = None, None
        self.world.turn()
        self.time_s += after_s

    async def until_idle(self, *, turns: int = 200) -> None:
        quiet = 0
        for _ in range(turns):
            await self.turn()
            status = self.world.status
            idle = status is not None and status.phase is Phase.IDLE
            quiet = quiet + 1 if idle else 0
            if quiet == 4:
                await self.close()
                return
        raise AssertionError(f"not idle: {self.world.status}; {self.world.log[-20:]}")

    async def until(self, phase: Phase, *, turns: int = 120) -> str:
        for _ in range(turns):
            await self.turn()
            if self.world.status is not None and self.world.status.phase is phase:
                return self.world.status.message
        raise AssertionError(f"not {phase}: {self.world.status}")

    async def close(self) -> None:
        if self._operator is not None:
            await self._operator.close()
            self._operator = None

    async def _elect(self) -> None:
        world = self.world
        if world.may_lead(world.me) and self._operator is not None:
            return
        await self.close()
        world.me = next(n for n in world.names() if world.may_lead(n))
        self._operator = Operator(
            world=world,
            leadership=self,
            own=OwnNode(world.me, orders=self, agent=None),  # type: ignore[arg-type] - no orders
            door=NoDoor(),
            pace=Pace(notice_s=0, again_s=0, retire_s=60),
            now_s=lambda: self.time_s,
        )


def image_only(world: RolloutWorld) -> None:
    world.upgrade(policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes=NEW))


def with_kubernetes(world: RolloutWorld) -> None:
    world.upgrade(policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes=NEW, also=OLD))


async def test_a_cluster_that_is_as_the_policy_says_is_left_alone() -> None:
    world = RolloutWorld.running(control_planes=3, workers=2)
    names = world.names()
    await Drill(world).until_idle()
    assert world.names() == names
    assert set(world.log) <= {f"group {CONTROL}", f"group {WORKERS}"}


@pytest.mark.parametrize(("planes", "workers"), [(1, 1), (3, 2), (5, 0)])
async def test_a_new_image_replaces_every_node_and_no_request_fails(
    planes: int, workers: int
) -> None:
    world = RolloutWorld.running(control_planes=planes, workers=workers)
    before = world.instance_ids()
    image_only(world)
    await Drill(world).until_idle()
    assert world.broken == []
    assert world.images() == {NEW_IMAGE}
    assert not before & world.instance_ids()
    assert len(world.names()) == planes + workers
    removed = [w for w in world.log if w.startswith("delete node")]
    assert [("control" in w) for w in removed] == [True] * planes + [False] * workers


@pytest.mark.parametrize(("old", "planes"), [("v1.36.1", 1), ("v1.35.3", 3)])
async def test_kubernetes_goes_first_on_control_planes_and_then_the_nodes_are_replaced(
    old: str, planes: int
) -> None:
    world = RolloutWorld.running(control_planes=planes, workers=2, kubernetes=old)
    world.upgrade(policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes=NEW, also=old))
    await Drill(world).until_idle()
    assert world.broken == []
    assert (world.kubelets(), world.api_servers()) == ({NEW}, {NEW})
    assert set(dataclasses.astuple(world.components)) == {NEW, ""}, "no cloud's components"
    order = [w for w in world.log if w in ("snapshot", "config maps", "core dns", "rbac")]
    assert order == ["snapshot", "config maps", "core dns", "rbac"]
    first_upgrade = next(i for i, w in enumerate(world.log) if w.endswith(" upgrade"))
    assert world.log.index("config maps") < first_upgrade < world.log.index("core dns")
    assert world.log.index("rbac") < world.log.index(f"create {CONTROL}")


async def test_the_clouds_components_come_between_control_planes_and_workers() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1, kubernetes=NEW)
    await Drill(world).until_idle()
    assert "cloud objects" not in world.log, "nobody wants any, none are there"
    world.upgrade(policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes=NEW))
    world.wanted_objects = "ab" * 32
    await Drill(world).until_idle()
    assert world.components.cloud_objects == "ab" * 32
    assert world.log.count("cloud objects") == 1
    place = world.log.index("cloud objects")
    assert world.log.index(f"create {CONTROL}") < place < world.log.index(f"create {WORKERS}")


async def test_a_roll_out_that_goes_back_brings_the_old_components_back() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1, kubernetes=NEW)
    world.wanted_objects = "ab" * 32
    await Drill(world).until_idle()
    world.upgrade(policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes=NEW))
    world.wanted_objects, world.refused_objects = "cd" * 32, "ClusterRole x: is somebody else's"
    drill = Drill(world)
    for _ in range(60):
        await drill.turn()
    world.upgrade(policy(serial=3, images=(OLD_IMAGE, NEW_IMAGE), kubernetes=NEW))
    world.wanted_objects, world.refused_objects = "ab" * 32, ""
    await Drill(world).until_idle()
    assert world.components.cloud_objects == "ab" * 32
    assert world.images() == {OLD_IMAGE}


async def test_components_that_are_refused_stop_before_workers_and_say_why() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1, kubernetes=NEW)
    await Drill(world).until_idle()
    world.upgrade(policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes=NEW))
    world.wanted_objects, world.refused_objects = "ab" * 32, "ClusterRole x: is somebody else's"
    drill = Drill(world)
    for _ in range(60):
        await drill.turn()
    assert f"create {WORKERS}" not in world.log
    assert world.status is not None
    assert "cloud integration: ClusterRole x: is somebody else's" in world.status.message
    world.refused_objects = ""
    await drill.until_idle()
    assert world.components.cloud_objects == "ab" * 32


async def test_an_agent_that_cannot_say_what_is_wanted_takes_nothing_away() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1, kubernetes=NEW)
    world.wanted_objects = "ab" * 32
    await Drill(world).until_idle()
    world.wanted_objects = None
    await Drill(world).until_idle()
    assert world.components.cloud_objects == "ab" * 32
    assert world.log.count("cloud objects") == 1
    assert world.orders == {}


@pytest.mark.parametrize("first", range(2, 42))
async def test_killed_at_any_call_the_next_operator_goes_on(first: int) -> None:
    """Each test kills at a call, and again some calls later, until the roll-out has ended."""
    world = RolloutWorld.running(control_planes=3, workers=2, kubernetes=OLD)
    with_kubernetes(world)
    world.wanted_objects = "ab" * 32
    drill = Drill(world)
    killed = 0
    world.die_at = first
    for _ in range(400):
        await drill.turn()
        if world.die_at is None:
            killed += 1
            world.die_at = world.calls + 37
        if world.images() == {NEW_IMAGE} and world.kubelets() == {NEW}:
            break
    world.die_at = None
    await drill.until_idle()
    assert killed > 3
    assert world.components.cloud_objects == "ab" * 32
    assert world.broken == []
    assert len(world.names()) == 5
    assert (world.images(), world.kubelets(), world.api_servers()) == ({NEW_IMAGE}, {NEW}, {NEW})


async def test_a_new_node_that_is_not_healthy_stops_it_and_the_old_one_stays() -> None:
    world = RolloutWorld.running(control_planes=1, workers=2)
    before = world.names()
    image_only(world)
    world.next_broken = True
    drill = Drill(world)
    message = await drill.until(Phase.STOPPED)
    assert "is not healthy: not let in: `constellation log` has refusals" in message
    for _ in range(20):
        await drill.turn()
    assert world.names() == before
    assert world.broken == []
    # the way back: the machine that failed is removed, and the cluster is as before
    world.upgrade(policy(serial=3, images=(OLD_IMAGE, NEW_IMAGE), kubernetes=NEW))
    await drill.until_idle()
    assert (world.names(), world.images()) == (before, {OLD_IMAGE})


async def test_after_a_change_of_leader_a_machine_of_the_way_there_is_not_waited_for() -> None:
    world = RolloutWorld.running(control_planes=3, workers=1)
    before = world.names()
    image_only(world)
    world.next_broken = True
    drill = Drill(world)
    await drill.until(Phase.STOPPED)
    world.upgrade(policy(serial=3, images=(OLD_IMAGE, NEW_IMAGE), kubernetes=NEW))
    await drill.close()  # who leads now did not see for which policy the machine was made
    world.me = ""
    await drill.until_idle()
    assert (world.names(), world.images()) == (before, {OLD_IMAGE})
    assert len([w for w in world.log if w.startswith("create")]) == 1


async def test_a_new_leader_makes_one_more_machine_and_not_one_after_the_other() -> None:
    world = RolloutWorld.running(control_planes=3, workers=1)
    image_only(world)
    drill = Drill(world)
    for _ in range(3):
        world.next_broken = True
        await drill.until(Phase.STOPPED, turns=240)
        for _ in range(int(2 * START_S / LOOK_S)):
            world.next_broken = True
            await drill.turn()
        await drill.close()
    created = [w for w in world.log if w.startswith("create")]
    assert len(created) <= 3, "one for each who leads"
    assert world.broken == []


@pytest.mark.parametrize("name", ["worker-default-0", "control-plane-default-1"])
@pytest.mark.parametrize("how", ["power_off", "vanish"])
async def test_a_node_that_dies_while_it_is_drained_is_taken_for_dead(name: str, how: str) -> None:
    world = RolloutWorld.running(control_planes=3, workers=2)
    drill = Drill(world)
    await drill.until_idle()
    image_only(world)
    world.budget_blocks = "worker" in name
    for _ in range(100):
        await drill.turn()
        if f"mark {name}" in world.log:
            break
    getattr(world, how)(name)
    world.budget_blocks = False
    for _ in range(int((DEAD_S + 100) / LOOK_S)):
        await drill.turn()
    await drill.until_idle()
    assert len(world.names()) == 5
    assert world.images() == {NEW_IMAGE}
    assert world.broken == []


async def test_a_machine_that_boots_another_image_is_refused_and_the_reason_is_shown() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1)
    image_only(world)
    world.provider_image = b"x" * 32
    message = await Drill(world).until(Phase.STOPPED)
    assert "refused: pcr4: found another" in message
    assert world.images() >= {OLD_IMAGE}
    assert world.broken == []


async def test_a_provider_that_boots_the_old_image_stops_it_too() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1)
    image_only(world)
    world.provider_image = OLD_IMAGE
    message = await Drill(world).until(Phase.STOPPED)
    assert "the provider boots another image" in message
    assert len(world.instance_ids()) <= 3, "no endless row of new machines"
    assert world.broken == []


@pytest.mark.parametrize("name", ["worker-default-0", "control-plane-default-2"])
@pytest.mark.parametrize("how", ["power_off", "vanish"])
async def test_a_node_that_stays_dead_is_replaced(name: str, how: str) -> None:
    world = RolloutWorld.running(control_planes=3, workers=2)
    drill = Drill(world)
    await drill.until_idle()
    before = world.instance_ids()
    getattr(world, how)(name)
    for _ in range(int((DEAD_S + 100) / LOOK_S)):
        await drill.turn()
    await drill.until_idle()
    assert len(world.names()) == 5
    assert len(before - world.instance_ids()) == 1
    assert world.broken == []


async def test_a_gap_in_the_operators_own_looks_restarts_the_count() -> None:
    world = RolloutWorld.running(control_planes=3, workers=2)
    drill = Drill(world)
    await drill.until_idle()
    world.power_off("worker-default-0")
    for _ in range(int(DEAD_S / LOOK_S) - 2):
        await drill.turn()
    await drill.turn(after_s=10 * DEAD_S)  # the machine slept
    for _ in range(int(DEAD_S / LOOK_S) - 5):
        await drill.turn()
    assert "delete node worker-default-0" not in world.log
    for _ in range(20):
        await drill.turn()
    assert "delete node worker-default-0" in world.log
    assert GAP_S < DEAD_S


async def test_a_provider_that_lists_nothing_removes_nobody() -> None:
    world = RolloutWorld.running(control_planes=3, workers=2)
    drill = Drill(world)
    await drill.until_idle()
    world.list_is_empty = True
    log = list(world.log)
    for _ in range(int(2 * START_S / LOOK_S)):
        await drill.turn()
    assert world.log == log


async def test_two_dead_control_planes_of_three_are_no_quorum_and_nothing_is_removed() -> None:
    world = RolloutWorld.running(control_planes=3, workers=0)
    drill = Drill(world)
    await drill.until_idle()
    for name in world.names()[1:]:
        world.power_off(name)
    world.broken.clear()
    log = list(world.log)
    for _ in range(100):
        with pytest.raises(Exception, match="no quorum"):
            await drill.turn()
        drill.time_s += LOOK_S
    assert world.log == log


async def test_a_group_grows_and_shrinks_as_its_object_says() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1)
    drill = Drill(world)
    await drill.until_idle()
    workers = world.groups[WORKERS]
    world.groups[WORKERS] = dataclasses.replace(workers, size=3)
    await drill.until_idle()
    assert sum("worker" in n for n in world.names()) == 3
    world.groups[WORKERS] = workers
    await drill.until_idle()
    assert sum("worker" in n for n in world.names()) == 1
    world.groups[CONTROL] = dataclasses.replace(world.groups[CONTROL], size=3)
    await drill.until_idle()
    assert sum("control" in n for n in world.names()) == 3
    assert world.broken == []


async def test_a_disruption_budget_is_waited_for_and_named_never_forced() -> None:
    world = RolloutWorld.running(control_planes=1, workers=1)
    drill = Drill(world)
    await drill.until_idle()
    image_only(world)
    world.budget_blocks = True
    for _ in range(150):
        await drill.turn()
    status = world.status
    assert status is not None
    steps = {n.name: n.step for n in status.nodes}
    assert steps["worker-default-0"].startswith("drain: a disruption budget keeps web-")
    assert world.broken == []
    world.budget_blocks = False
    await drill.until_idle()
    assert world.images() == {NEW_IMAGE}
    assert world.broken == []
