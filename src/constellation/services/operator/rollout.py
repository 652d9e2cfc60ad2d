"""From one look to what is done about it: health, plan, and what people are shown. Pure.

The planner (`kube.rollout`) says what may be done; here it is given what it looks at. Desired are
the image and Kubernetes of the signed policy, and the groups of the NodeGroup objects: an object
says how many, never what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.kube.membership import NodeRole
from constellation.kube.rollout import (
    Desired,
    Health,
    NodeGroup,
    Observed,
    RemoveNode,
    Stop,
    next_actions,
)
from constellation.services.operator.health import Memory, remember, views
from constellation.trust.node_image import wanted_image

if TYPE_CHECKING:
    from constellation.kube.rollout import Action, NodeView
    from constellation.services.operator.facts import Facts

__all__ = ["Judged", "judge", "missing_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a look leads to; `memory` is for the next one."""

    memory: Memory
    nodes: tuple[NodeView, ...]
    actions: tuple[Action, ...]


def judge(facts: Facts, before: Memory | None, *, now_s: float) -> Judged:
    """Count the look, see every node, and plan; `now_s` is of the steady clock."""
    memory = remember(before, facts, now_s=now_s)
    nodes = views(facts, memory)
    return Judged(memory=memory, nodes=nodes, actions=_plan(facts, nodes, memory))


def missing_groups(facts: Facts) -> tuple[NodeGroup, ...]:
    """Give the groups that have no object yet, as `init` planned them."""
    there = {g.name for g in facts.groups}
    return tuple(
        NodeGroup(name=g.name, role=g.role, size=g.size)
        for g in facts.membership.settings.groups
        if g.name not in there and (g.role is NodeRole.WORKER or g.size in (1, 3, 5))
    )


def _plan(facts: Facts, nodes: tuple[NodeView, ...], memory: Memory) -> tuple[Action, ...]:
    image = wanted_image(facts.policy)
    if not image:
        return (Stop(why="the cluster policy accepts no image without an end"),)
    if stop := _other_image(facts, memory, wanted=image):
        return (stop,)
    there = facts.components.cloud_objects
    desired = Desired(
        image=image.hex(),
        kubernetes=facts.policy.kubernetes_version,
        groups=(*facts.groups, *missing_groups(facts)),
        cloud_objects=there if facts.wanted_objects is None else facts.wanted_objects,
    )
    observed = Observed(
        nodes=nodes,
        snapshot=facts.snapshot,
        config_maps=facts.components.config_maps,
        core_dns=facts.components.core_dns,
        rbac=facts.components.rbac,
        cloud_objects=there,
    )
    return _abandoned(nodes, desired) or next_actions(observed, desired)


def _other_image(facts: Facts, memory: Memory, *, wanted: bytes) -> Stop | None:
    """Stop where a machine that was made for this policy shows another image than the policy's.

    Else its like would be made again and again. The provider has to be given the image first.
    """
    serial = facts.policy.serial
    placed = (*facts.membership.nodes, *(r.member for r in facts.membership.reservations))
    for member in placed:
        if memory.came.get(member.instance_id) == serial and member.image not in (b"", wanted):
            return Stop(
                why=f"new node {member.name} shows image {member.image.hex()[:16]}, expected "
                f"{wanted.hex()[:16]}: the provider boots another image; give it the right one, "
                f"then delete machine {member.instance_id}"
            )
    return None


def _abandoned(nodes: tuple[NodeView, ...], desired: Desired) -> tuple[Action, ...]:
    """Remove machines that failed and are not wanted any more, as after a way back."""
    return tuple(
        RemoveNode(node=n.name)
        for n in nodes
        if n.health is Health.FAILED and n.image != desired.image
    )
