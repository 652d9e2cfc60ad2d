"""How a node leaves without a failed request, step by step; each step may be repeated.

A worker:          1 marked, cordoned        kube-proxy's health check fails from then on
                   2 load balancer           time to notice: no new connection comes
                   3 drained                 evictions, as disruption budgets allow
                   4 endpoints               nobody is sent to its pods any more
                   5 machine, Node           out of the load balancer, off, deleted
A control plane:   1 to 4, then
                   5 retired                 its own operator lets its API server end: not ready,
                                             then no new connection, then the old ones
                   6 etcd                    the lead moves away, its member is removed
                   7 machine, Node
A dead one:        etcd member, machine, Node.
Killed in the middle, the node stands marked, and the next leader begins again at 1. JoinService
removes the membership, and with it the right to the disk's key, once nobody knows the node.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import Conflict, Unavailable
from constellation.kube.cluster_release import Order, OrderKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.kube.etcd import EtcdMember
    from constellation.services.operator.ports import World

__all__ = ["Leaving", "Pace", "remove_control_plane", "remove_dead", "remove_worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A node that is to go; `serial` and `kubernetes` are the policy's.

    `address` is its own by the join log; empty: it never joined, and is no member of etcd.
    """

    name: str
    instance_id: str
    address: str
    serial: int
    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds: the load balancer notices, a look again, an API server's end at most.

    `endpoints_s`: endpoints on a node without pods are waited for so long; they may be somebody's
    own objects, which nobody ends.
    """

    notice_s: float
    again_s: float = 1.0
    retire_s: float = 180.0
    endpoints_s: float = 60.0


async def remove_worker(
    node: Leaving, *, world: World, pace: Pace, say: Callable[[str], None]
) -> None:
    """Drain a worker, then delete it. Raises Unavailable."""
    await _empty(node, world=world, pace=pace, say=say)
    await _delete(node, world=world, say=say)


async def remove_control_plane(
    node: Leaving, *, world: World, pace: Pace, say: Callable[[str], None]
) -> None:
    """Drain a control plane, end its API server, take it out of etcd, then delete it.

    Raises:
        Unavailable: somebody does not answer, or its API server does not end.
        Conflict: no other voter is there to lead etcd.
    """
    await _empty(node, world=world, pace=pace, say=say)
    say("API server ends")
    order = Order(kind=OrderKind.RETIRE, policySerial=node.serial, kubernetes=node.kubernetes)
    await world.order(node.name, order)
    await _ended(node, world=world, pace=pace)
    say("etcd")
    await _leave_etcd(node, world=world)
    await _delete(node, world=world, say=say)
    await world.order(node.name, None)


async def remove_dead(node: Leaving, *, world: World, say: Callable[[str], None]) -> None:
    """Take a node that does not live any more out of etcd, and delete it. Raises Unavailable."""
    say("etcd")
    for member in await world.etcd_members() if node.address else ():
        if member.address == node.address:
            await world.remove_etcd_member(member)
    # marked, so that JoinService need not wait to see whether it comes back
    await world.mark_leaving(node.name)
    await _delete(node, world=world, say=say)
    await world.order(node.name, None)


async def _empty(node: Leaving, *, world: World, pace: Pace, say: Callable[[str], None]) -> None:
    say("load balancer")
    await world.mark_leaving(node.name)
    await asyncio.sleep(pace.notice_s)
    while pods := await world.pods_to_leave(node.name):
        kept = [p.name for p in pods if not p.ending and not await world.evict(p)]
        more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        say(f"drain: a disruption budget keeps {kept[0]}{more}" if kept else "drain")
        await asyncio.sleep(pace.again_s)
    say("endpoints")
    end_s = clock.monotonic_s() + pace.endpoints_s
    while await world.endpoints_on(node.name) and clock.monotonic_s() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(pace.again_s)


async def _ended(node: Leaving, *, world: World, pace: Pace) -> None:
    end_s = clock.monotonic_s() + pace.retire_s
    while await world.api_server_answers(node.address):
        if clock.monotonic_s() > end_s:
            raise Unavailable(f"the API server of {node.name} still answers")
        await asyncio.sleep(pace.again_s)


async def _leave_etcd(node: Leaving, *, world: World) -> None:
    members = await world.etcd_members()
    own = next((m for m in members if m.address == node.address), None)
    if own is None:
        return
    if await world.etcd_leader() == own.member_id:
        await world.move_etcd_leader(own, _next_leader(own, members))
    await world.remove_etcd_member(own)


def _next_leader(own: EtcdMember, members: tuple[EtcdMember, ...]) -> EtcdMember:
    others = [m for m in members if m is not own and not m.learner]
    if not others:
        raise Conflict("etcd: no other voter is there to lead")
    return others[0]


async def _delete(node: Leaving, *, world: World, say: Callable[[str], None]) -> None:
    say("machine")
    await world.delete_machine(node.instance_id)
    # after the machine: a kubelet that runs would write it again
    await world.delete_node(node.name)
