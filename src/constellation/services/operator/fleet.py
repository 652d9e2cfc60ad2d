"""What an autoscaler may know and ask for: sizes of groups of workers within their bounds. Pure.

It asks for a number, or for machines of a group to go; which image a machine gets, and whether it
becomes a node, say the signed policy and admission as for every other. Bounds stand in the
NodeGroup object, the signed policy's slots are above them. Control planes are not shown.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, UserError
from constellation.kube.membership import NodeRole
from constellation.trust.cluster_policy import is_rolling

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from constellation.kube.membership import Member, Membership
    from constellation.kube.rollout import NodeGroup
    from constellation.providers.protocols import Instance
    from constellation.services.operator.facts import Facts, KubeNode
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = [
    "Fleet",
    "Machine",
    "MachineState",
    "Scaled",
    "asked_to_leave",
    "decreased",
    "group_of",
    "increased",
    "machines",
    "nameless",
    "scaled",
    "settled_groups",
    "without",
]

_SCHEME = "constellation://"
_MOST_AT_ONCE = 100


class MachineState(StrEnum):
    """How far a machine is."""

    CREATING = "creating"
    RUNNING = "running"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One look: signed policy and verified membership of this disk, claims of the others."""

    policy: ClusterPolicy
    membership: Membership
    groups: tuple[NodeGroup, ...]
    instances: tuple[Instance, ...]
    nodes: tuple[KubeNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of a scaled group; `provider_id` is what its Node object has, or will have."""

    instance_id: str
    group: str
    provider_id: str
    state: MachineState


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A group that an autoscaler may move, and between what; never above the policy's slots."""

    group: NodeGroup
    least: int
    most: int


def scaled(fleet: Fleet) -> tuple[Scaled, ...]:
    """List the groups that have bounds."""
    slots = {g.name: g.size for g in fleet.membership.settings.groups} | dict(
        fleet.policy.slots or {}
    )
    return tuple(
        Scaled(
            group=group,
            least=min(group.bounds.least, slots.get(group.name, 0)),
            most=min(group.bounds.most, slots.get(group.name, 0)),
        )
        for group in fleet.groups
        if group.bounds is not None and group.role is NodeRole.WORKER
    )


def group_of(fleet: Fleet, *, provider_id: str, name: str) -> Scaled | None:
    """Find the group of a Node object; None: not one that is scaled."""
    machine = _find(fleet, provider_id=provider_id, name=name)
    return next((s for s in scaled(fleet) if machine and s.group.name == machine.group), None)


def machines(fleet: Fleet, group: str) -> tuple[Machine, ...]:
    """List the machines of a scaled group. Raises UserError: there is no such group."""
    _named(fleet, group)
    return tuple(m for m, _ in _all(fleet) if m.group == group)


def increased(fleet: Fleet, group: str, *, delta: int) -> NodeGroup:
    """Give the group with so many nodes more.

    Raises:
        UserError: no such group, or a delta that is not above zero.
        Conflict: above its bound, or a roll-out goes on.
    """
    wanted = _named(fleet, group)
    if delta <= 0:
        raise UserError(f"{group}: expected a delta above 0, found {delta}")
    size = wanted.group.size + delta
    if size > wanted.most:
        raise Conflict(f"{group}: {size} nodes, expected at most {wanted.most}")
    _demand_calm(fleet)
    return dataclasses.replace(wanted.group, size=size)


def decreased(fleet: Fleet, group: str, *, delta: int) -> NodeGroup:
    """Give the group without nodes that were asked for and are not there.

    Raises:
        UserError: no such group, or a delta that is not below zero.
        Conflict: a machine that exists would have to go, or it is below its bound.
    """
    wanted = _named(fleet, group)
    if delta >= 0:
        raise UserError(f"{group}: expected a delta below 0, found {delta}")
    there = sum(m.state is not MachineState.DELETING for m in machines(fleet, group))
    size, least = wanted.group.size + delta, max(there, wanted.least)
    if size < least:
        raise Conflict(f"{group}: {size} nodes, expected at least {least}; {there} machines exist")
    return dataclasses.replace(wanted.group, size=size)


def without(fleet: Fleet, group: str, *, nodes: Collection[tuple[str, str]]) -> NodeGroup:
    """Give the group without these nodes (provider id, name): they go, and the size with them.

    One that goes already, or is named twice, counts once.

    Raises:
        UserError: no such group, none or too many at once, or one that is not of this group.
        Conflict: fewer than its bound would stay, or a roll-out goes on.
    """
    wanted = _named(fleet, group)
    if not 1 <= len(nodes) <= _MOST_AT_ONCE:
        raise UserError(f"{group}: expected 1 to {_MOST_AT_ONCE} nodes, found {len(nodes)}")
    going = dict.fromkeys(wanted.group.leaving)
    before = len(going)
    for provider_id, name in nodes:
        machine = _find(fleet, provider_id=provider_id, name=name)
        if machine is None or machine.group != group:
            raise UserError(f"{group}: {(name or provider_id)[:80]!r} is no node of it")
        if machine.state is not MachineState.DELETING:
            going[machine.instance_id] = None
    size = wanted.group.size - (len(going) - before)
    if size < wanted.least:
        raise Conflict(f"{group}: {size} nodes would stay, expected at least {wanted.least}")
    _demand_calm(fleet)
    return dataclasses.replace(wanted.group, size=size, leaving=tuple(going))


def nameless(facts: Facts) -> tuple[tuple[str, str], ...]:
    """List Nodes of scaled groups whose object names no machine, with what to write into it.

    An autoscaler tells by it which machine became which Node; a cloud's own controller may have
    written another one, which then counts.
    """
    bound = {g.name for g in facts.groups if g.bounds is not None}
    named = {n.name for n in facts.nodes if n.provider_id}
    there = {n.name for n in facts.nodes}
    return tuple(
        (m.name, f"{_SCHEME}{m.instance_id}")
        for m in facts.membership.nodes
        if m.group in bound and m.name in there - named
    )


def settled_groups(facts: Facts) -> tuple[NodeGroup, ...]:
    """Give the groups that still name machines which are gone, without them."""
    there = {i.instance_id for i in facts.instances} | {
        m.instance_id for m in facts.membership.nodes if any(n.name == m.name for n in facts.nodes)
    }
    found = []
    for group in facts.groups:
        left = tuple(i for i in group.leaving if i in there)
        if left != group.leaving:
            found.append(dataclasses.replace(group, leaving=left))
    return tuple(found)


def asked_to_leave(instance_id: str, groups: Collection[NodeGroup], *, group: str) -> bool:
    """Say whether its group of workers names a machine as one that shall go."""
    return any(
        instance_id in g.leaving for g in groups if g.name == group and g.role is NodeRole.WORKER
    )


def _named(fleet: Fleet, group: str) -> Scaled:
    found = next((s for s in scaled(fleet) if s.group.name == group), None)
    if found is None:
        raise UserError(f"expected a group that is scaled, found {group[:60]!r}")
    return found


def _demand_calm(fleet: Fleet) -> None:
    if is_rolling(fleet.policy):
        raise Conflict("a roll-out goes on: groups get another size once it is done")


def _find(fleet: Fleet, *, provider_id: str, name: str) -> Machine | None:
    for machine, node in _all(fleet):
        if provider_id and machine.provider_id == provider_id:
            return machine
        if not provider_id and name and name in (node, machine.instance_id):
            return machine
    return None


def _all(fleet: Fleet) -> Iterator[tuple[Machine, str]]:
    """Give machines of scaled groups, each with the name of its node; empty: it has none yet.

    A member's group is the join log's; the provider's word counts for those that did not join.
    """
    groups = {g.name: g for g in fleet.groups}
    bound = {s.group.name for s in scaled(fleet)}
    nodes = {n.name: n for n in fleet.nodes}
    members = {m.instance_id: m for m in _members(fleet)}
    listed = {i.instance_id: i.group for i in fleet.instances}
    for instance_id, group in (listed | {i: m.group for i, m in members.items()}).items():
        member = members.get(instance_id)
        node = nodes.get(member.name) if member is not None else None
        if group not in bound or (instance_id not in listed and node is None):
            continue
        leaving = instance_id in groups[group].leaving or (node is not None and node.leaving)
        state = MachineState.DELETING if leaving else MachineState.CREATING
        if not leaving and node is not None:
            state = MachineState.RUNNING
        own = node.provider_id if node is not None else ""
        yield (
            Machine(
                instance_id=instance_id,
                group=group,
                provider_id=own or f"{_SCHEME}{instance_id}",
                state=state,
            ),
            member.name if member is not None else "",
        )


def _members(fleet: Fleet) -> Iterator[Member]:
    yield from fleet.membership.nodes
    yield from (r.member for r in fleet.membership.reservations)
