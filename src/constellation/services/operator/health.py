"""How each node is: from many looks on the steady clock, never from one. Pure.

A node is dead after `DEAD_LOOKS` looks in a row over `DEAD_S` seconds, or `GONE_S` where the
provider does not list its machine; a new one has failed if it is not ready after `START_S`. A gap
in the looks themselves (the machine slept) starts every count anew: then it is not the node that
was away. A provider's list without the operator's own machine is not believed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping  # noqa: TC003 - a field's type
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.kube.membership import Member, NodeRole
from constellation.kube.rollout import Health, NodeView, version_order
from constellation.services.operator.fleet import asked_to_leave
from constellation.trust.node_image import wanted_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.providers.protocols import Instance
    from constellation.services.operator.facts import Facts, KubeNode

__all__ = [
    "DEAD_LOOKS",
    "DEAD_S",
    "GAP_S",
    "GONE_S",
    "START_S",
    "Memory",
    "Seen",
    "remember",
    "views",
]

DEAD_LOOKS = 10
DEAD_S = 300.0
GONE_S = 30.0
START_S = 300.0
GAP_S = 30.0
"""Seconds without a look after which all counts begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A machine that is not well: since when (steady clock), in how many looks, ever ready before.

    `serial` is that of the policy when it was first seen; `unlisted`: by the provider, all along
    since then. A machine that is being deleted is listed for a while after its API server ended.
    """

    since_s: float
    looks: int
    serial: int
    unlisted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the operator knows from looks before: by instance id, and API servers by address.

    `came` has the machines that appeared since the first look, with the policy's serial then.
    """

    at_s: float
    unwell: Mapping[str, Seen]
    api_servers: Mapping[str, str]
    known: frozenset[str]
    came: Mapping[str, int]


def remember(before: Memory | None, facts: Facts, *, now_s: float) -> Memory:
    """Count one more look; who is well, or was not looked at for long, starts anew."""
    listed = frozenset(i.instance_id for i in facts.instances)
    if before is None:
        before = Memory(at_s=now_s, unwell={}, api_servers={}, known=listed, came={})
    if now_s - before.at_s > GAP_S:
        before = dataclasses.replace(before, unwell={})
    fresh = dict.fromkeys(listed - before.known, facts.policy.serial)
    believed = _believed(facts)
    unwell = {}
    for instance_id in _known(facts):
        if instance_id in _well(facts):
            continue
        missing = believed and instance_id not in listed
        seen = before.unwell.get(instance_id)
        if seen is None or seen.unlisted != missing:
            # what counted towards "dead" does not count towards "gone", nor the other way round
            seen = Seen(since_s=now_s, looks=0, serial=facts.policy.serial, unlisted=missing)
        unwell[instance_id] = dataclasses.replace(seen, looks=seen.looks + 1)
    return Memory(
        at_s=now_s,
        unwell=unwell,
        api_servers={**before.api_servers, **facts.api_servers},
        known=before.known | listed,
        came={i: serial for i, serial in {**before.came, **fresh}.items() if i in listed},
    )


def views(facts: Facts, memory: Memory) -> tuple[NodeView, ...]:
    """Give every node of the cluster, and every machine that may become one.

    A machine of a group that the cluster does not have is nobody's: it will not be admitted.
    """
    nodes = {n.name: n for n in facts.nodes}
    listed = {i.instance_id: i for i in facts.instances}
    found = [
        _view(member, nodes.get(member.name), facts, memory, settled=settled)
        for member, settled in _members(facts)
        if member.name in nodes
        or member.instance_id in listed
        or any(m.address == member.address for m in facts.etcd)
    ]
    known = {member.instance_id for member, _ in _members(facts)}
    groups = {g.name for g in facts.membership.settings.groups}
    found += [
        _newcomer(i, facts, memory)
        for i in facts.instances
        if i.instance_id not in known and i.group in groups
    ]
    return tuple(found)


def _members(facts: Facts) -> Iterator[tuple[Member, bool]]:
    """Give members with whether they ever had their place; retired ones whose Node is left."""
    yield from ((m, True) for m in facts.membership.nodes)
    yield from ((r.member, False) for r in facts.membership.reservations)
    left = {n.name for n in facts.nodes}
    yield from ((m, True) for m in facts.membership.retired if m.name in left)


def _view(
    member: Member, node: KubeNode | None, facts: Facts, memory: Memory, *, settled: bool
) -> NodeView:
    health, reason = _health(member, node, facts, memory, settled=settled)
    control_plane = member.role is NodeRole.CONTROL_PLANE
    oldest = _oldest(facts, memory)
    return NodeView(
        name=member.name,
        role=member.role,
        group=member.group,
        image=_image(member, facts),
        kubelet=node.kubelet if node is not None and node.kubelet else oldest,
        api_server=memory.api_servers.get(member.address, oldest) if control_plane else "",
        health=health,
        reason=reason,
    )


def _health(
    member: Member, node: KubeNode | None, facts: Facts, memory: Memory, *, settled: bool
) -> tuple[Health, str]:
    retired = any(m.name == member.name for m in facts.membership.retired)
    if retired:
        return Health.DRAINING, ""
    health, reason = _by_looks(member, node, facts, memory, settled=settled)
    if health is Health.DEAD:
        return health, reason  # it goes as the dead do, marked or not: nobody there ends its pods
    marked = node is not None and node.leaving
    if marked or asked_to_leave(member.instance_id, facts.groups, group=member.group):
        return Health.DRAINING, ""
    return health, reason


def _by_looks(
    member: Member, node: KubeNode | None, facts: Facts, memory: Memory, *, settled: bool
) -> tuple[Health, str]:
    if member.instance_id in _well(facts):
        return Health.READY, ""
    seen = memory.unwell.get(member.instance_id)
    reason = _reason(member.instance_id, facts) or _unready(member, node, facts)
    if seen is None or seen.looks < DEAD_LOOKS:
        return (Health.NOT_READY if settled else Health.STARTING), reason
    lasted_s = memory.at_s - seen.since_s
    if settled and lasted_s >= (GONE_S if seen.unlisted else DEAD_S):
        return Health.DEAD, reason
    if not settled and lasted_s >= START_S:
        return Health.FAILED, reason
    return (Health.NOT_READY if settled else Health.STARTING), reason


def _newcomer(instance: Instance, facts: Facts, memory: Memory) -> NodeView:
    """See a machine that has no place yet, under its instance id; its image shows when it joins.

    One that was there before this policy is taken for an old one: it will not get the new image. So
    is one that failed and was there before this operator led: nobody knows for which policy it was
    made. It is replaced once, by one that is known.
    """
    seen = memory.unwell.get(instance.instance_id)
    failed = seen is not None and seen.looks >= DEAD_LOOKS and memory.at_s - seen.since_s >= START_S
    serial = facts.policy.serial
    of_now = seen is None or seen.serial == serial
    if failed and memory.came.get(instance.instance_id) != serial:
        of_now = False
    health = Health.FAILED if failed else Health.STARTING
    if asked_to_leave(instance.instance_id, facts.groups, group=instance.group):
        health = Health.DRAINING
    role = NodeRole(str(instance.role))
    oldest = _oldest(facts, memory)
    outside = "not let in: `constellation log` has refusals" if failed else "it has not joined yet"
    return NodeView(
        name=instance.instance_id,
        role=role,
        group=instance.group,
        image=wanted_image(facts.policy).hex() if of_now else "",
        kubelet=oldest,
        api_server=oldest if role is NodeRole.CONTROL_PLANE else "",
        health=health,
        reason=_reason(instance.instance_id, facts) or outside,
    )


def _well(facts: Facts) -> frozenset[str]:
    """Give the instances whose node is ready; a control plane also serves the API and votes."""
    ready = {n.name for n in facts.nodes if n.ready}
    votes = {m.address for m in facts.etcd if not m.learner}
    return frozenset(
        member.instance_id
        for member, _ in _members(facts)
        if member.name in ready
        and (
            member.role is not NodeRole.CONTROL_PLANE
            or (member.address in facts.api_servers and member.address in votes)
        )
    )


def _known(facts: Facts) -> Iterator[str]:
    seen = set()
    for instance_id in (
        *(member.instance_id for member, _ in _members(facts)),
        *(i.instance_id for i in facts.instances),
    ):
        if instance_id not in seen:
            seen.add(instance_id)
            yield instance_id


def _believed(facts: Facts) -> bool:
    own = next((m.instance_id for m, _ in _members(facts) if m.name == facts.me), "")
    return any(i.instance_id == own for i in facts.instances)


def _image(member: Member, facts: Facts) -> str:
    """Give a node's image as its evidence showed it.

    The first node's was appraised by its owner and stands in no record until it comes back: it is
    the oldest one that the policy accepts, since it was there before every other.
    """
    return (member.image or facts.policy.releases[-1].image_digest).hex()


def _oldest(facts: Facts, memory: Memory) -> str:
    """Give the version that a joining node gets: the oldest API server's, of those known."""
    addresses = {m.address for m, _ in _members(facts) if m.role is NodeRole.CONTROL_PLANE}
    known = [v for address, v in memory.api_servers.items() if address in addresses]
    return min(known or facts.policy.artifact_lists, key=version_order)


def _reason(instance_id: str, facts: Facts) -> str:
    refused = facts.refusals.get(instance_id, "")
    return f"refused: {refused}" if refused else ""


def _unready(member: Member, node: KubeNode | None, facts: Facts) -> str:
    if node is None:
        return "it is no node of Kubernetes"
    if not node.ready:
        return "Kubernetes says that it is not ready"
    answers = member.address in facts.api_servers
    return "its etcd member does not vote" if answers else "its API server does not answer"
