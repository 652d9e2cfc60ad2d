"""Runs what the planner allows: one task an action, never the same one twice at once.

What fails is tried again after a pause, and says why meanwhile. Nothing is kept for the next
leader: who leads looks, plans, and goes on with the nodes that stand marked.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError
from constellation.kube.cluster_release import Order, OrderKind
from constellation.kube.membership import NodeRole
from constellation.kube.rollout import (
    ApplyCloudObjects,
    ApplyCoreDns,
    ApplyRbac,
    CreateNode,
    Health,
    RemoveNode,
    SetConfigMaps,
    Snapshot,
    UpgradeControlPlane,
)
from constellation.services.operator.removal import (
    Leaving,
    Pace,
    remove_control_plane,
    remove_dead,
    remove_worker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from constellation.kube.rollout import Action, NodeView
    from constellation.services.operator.facts import Facts
    from constellation.services.operator.ports import World

    _Do = Callable[[Callable[[str], None]], Coroutine[Any, Any, None]]

__all__ = ["Executor", "Work"]

_log = logging.getLogger(__name__)
_RETRY_S = 5.0


@dataclass(slots=True, kw_only=True)
class Work:
    """One thing that is being done; `node` is whom it is about, `step` how far it is."""

    key: str
    node: str
    group: str
    step: str
    task: asyncio.Task[None]


class Executor:
    """Tasks of the leading operator; `close` ends them all."""

    def __init__(self, world: World, *, pace: Pace, now_s: Callable[[], float]) -> None:
        self._world, self._pace, self._now_s = world, pace, now_s
        self._work: dict[str, Work] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._finished: list[Work] = []

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return bool(self._work)

    def begin_look(self) -> None:
        """Note that a look begins: what ends from now on may not be in it; once is enough."""
        self._finished = []

    def steps(self) -> dict[str, str]:
        """Say how far each node's work is, by node (by group for machines to come)."""
        return {w.node or w.group: w.step for w in self._work.values()}

    def failures(self) -> dict[str, str]:
        """Say why what was tried last did not work, by key."""
        return {key: reason for key, (_, reason) in self._failed.items()}

    def start(self, actions: tuple[Action, ...], facts: Facts, nodes: tuple[NodeView, ...]) -> None:
        """Start what is not being done yet; also the removal of each node that stands marked."""
        creating: dict[str, int] = {}
        for action in actions:
            match action:
                case UpgradeControlPlane(node=name):
                    self._order(name, facts)
                case CreateNode(group=group):
                    creating[group] = creating.get(group, 0) + 1
                case RemoveNode(node=name):
                    self._remove(name, facts, nodes)
                case _:
                    self._of_cluster(action, facts)
        for group, count in creating.items():
            self._create(group, count)
        self._take_back(facts, nodes)
        for node in nodes:
            if node.health is Health.DRAINING:
                self._remove(node.name, facts, nodes)

    def _of_cluster(self, action: Action, facts: Facts) -> None:
        """Do what belongs to no single node; waiting and stopping is nothing to do."""
        world, policy = self._world, facts.policy
        serial, wanted = policy.serial, policy.kubernetes_version
        match action:
            case Snapshot():
                self._run("snapshot", _quietly(lambda: world.snapshot(serial, wanted)))
            case SetConfigMaps():
                self._run("config maps", _quietly(lambda: world.set_config_maps(wanted)))
            case ApplyCoreDns():
                self._run("CoreDNS", _quietly(lambda: world.core_dns(serial, wanted)))
            case ApplyRbac():
                self._run("RBAC", _quietly(lambda: world.rbac(serial, wanted)))
            case ApplyCloudObjects():
                self._run(
                    "cloud integration", _quietly(lambda: world.cloud_objects(serial, wanted))
                )
            case _:
                pass

    async def close(self) -> None:
        """End everything; what was half done is found again."""
        ending = list(self._work.values())
        for work in ending:
            work.task.cancel()
        await asyncio.gather(*(w.task for w in ending), return_exceptions=True)
        for work in ending:
            self._forget(work)  # one that had not begun does not do it itself
        self._failed, self._finished = {}, []

    def _forget(self, work: Work) -> None:
        if self._work.get(work.key) is work:
            del self._work[work.key]

    def _create(self, group: str, count: int) -> None:
        """Create machines, less those that are coming or came after the look began."""
        coming = sum(
            w.group == group and not w.node for w in (*self._work.values(), *self._finished)
        )
        for number in range(coming, count):

            async def create(_: Callable[[str], None]) -> None:
                instance_id = await self._world.create_machine(group)
                _log.info("machine created", extra={"group": group, "instance": instance_id})

            self._run(f"create {group} {number}", create, group=group)

    def _remove(self, name: str, facts: Facts, nodes: tuple[NodeView, ...]) -> None:
        view = next(n for n in nodes if n.name == name)
        node = _leaving(view, facts)
        world, pace, key = self._world, self._pace, f"remove {name}"
        if view.health is Health.DEAD:
            # it died while it was drained: what waits for its pods would wait for ever
            if (draining := self._work.get(key)) is not None:
                draining.task.cancel()
            key = f"remove dead {name}"

        async def remove(say: Callable[[str], None]) -> None:
            never_ready = view.health in (Health.FAILED, Health.STARTING)
            if view.health is Health.DEAD or never_ready:
                await remove_dead(node, world=world, say=say)
            elif view.role is NodeRole.CONTROL_PLANE:
                await remove_control_plane(node, world=world, pace=pace, say=say)
            else:
                await remove_worker(node, world=world, pace=pace, say=say)
            _log.info("node removed", extra={"node": name, "was": str(view.health)})

        self._run(key, remove, node=name)

    def _order(self, name: str, facts: Facts) -> None:
        """Write what a control plane shall do; its own operator does it, the next looks see it."""
        order = _upgrade_order(facts)
        if facts.orders.get(name) != order:
            self._run(f"order {name}", _quietly(lambda: self._world.order(name, order)))

    def _take_back(self, facts: Facts, nodes: tuple[NodeView, ...]) -> None:
        """Take orders back that are done, of another policy, or for nobody."""
        servers = {n.name: n.api_server for n in nodes}
        for name, order in facts.orders.items():
            done = order.kind is OrderKind.UPGRADE and servers.get(name) == order.kubernetes
            stale = order.policySerial != facts.policy.serial
            if done or stale or name not in servers:
                self._run(f"take back {name}", self._no_order(name))

    def _no_order(self, name: str) -> _Do:
        return _quietly(lambda: self._world.order(name, None))

    def _run(
        self,
        key: str,
        do: _Do,
        *,
        node: str = "",
        group: str = "",
    ) -> None:
        failed = self._failed.get(key)
        waits = failed is not None and self._now_s() - failed[0] < _RETRY_S
        ended = any(w.key == key for w in self._finished)
        if key in self._work or waits or ended:
            return

        def say(step: str) -> None:
            if work.step != step:
                _log.info("step", extra={"work": key, "step": step})
            work.step = step

        async def guarded() -> None:
            try:
                await do(say)
                self._failed.pop(key, None)
            except ConstellationError as error:
                _log.warning("will try again", extra={"work": key, "reason": str(error)})
                self._failed[key] = (self._now_s(), str(error))
            except Exception as error:  # noqa: BLE001 - a task's top: a bug is said, not repeated
                _log.exception("a task failed", extra={"work": key})
                self._failed[key] = (self._now_s(), repr(error))
            finally:
                self._forget(work)
                self._finished.append(work)

        task = asyncio.create_task(guarded())
        work = Work(key=key, node=node, group=group, step=key.partition(" ")[0], task=task)
        self._work[key] = work


def _quietly(do: Callable[[], Coroutine[Any, Any, None]]) -> _Do:
    """Make work of one step of it."""

    async def work(_: Callable[[str], None]) -> None:
        await do()

    return work


def _upgrade_order(facts: Facts) -> Order:
    policy = facts.policy
    return Order(
        kind=OrderKind.UPGRADE, policySerial=policy.serial, kubernetes=policy.kubernetes_version
    )


def _leaving(view: NodeView, facts: Facts) -> Leaving:
    """Find a node's machine and address: by the join log, or by its id where it never joined.

    One that never joined is no member of etcd, and its address is the provider's word alone: it may
    be that of a control plane.
    """
    membership = facts.membership
    members = (
        *membership.nodes,
        *(r.member for r in membership.reservations),
        *membership.retired,
    )
    member = next((m for m in members if m.name == view.name), None)
    return Leaving(
        name=view.name,
        instance_id=member.instance_id if member else view.name,
        address=member.address if member else "",
        serial=facts.policy.serial,
        kubernetes=facts.policy.kubernetes_version,
    )
