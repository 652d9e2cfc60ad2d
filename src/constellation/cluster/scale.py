"""How a group gets another size: slots by the owner's signed policy, nodes by the operator.

Growing: the policy first, since admission gives no place that it does not name. Shrinking: the
nodes first, the policy when they are gone, so that no slot is left for a machine that nobody asked
for. What is asked of the operator stands in a NodeGroup object, which gives no place by itself.
The same call again goes on. Source: design, sections 6 and 10.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Protocol

from constellation.base.clock import monotonic_s
from constellation.base.errors import Conflict, Unavailable, UserError
from constellation.base.progress import Progress
from constellation.cluster.apply import require_state
from constellation.cluster.current_policy import current_policy, next_serial
from constellation.cluster.plan import wanted_machines
from constellation.cluster.policy_hand_over import hand_over
from constellation.cluster.secrets import read_secrets
from constellation.cluster.steps.machines import desired
from constellation.config.state import write_state
from constellation.kube.rollout import CONTROL_PLANE_SIZES, Bounds
from constellation.providers.protocols import Role
from constellation.trust.cluster_policy import is_rolling, sign_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.cluster.context import Context
    from constellation.config.schema import Config
    from constellation.config.state import State

__all__ = ["SetSize", "check_size", "means", "scale"]

_LOOK_S = 1.0


class SetSize(Protocol):
    """The operator's wish for one group."""

    async def __call__(
        self, kubeconfig: Path, group: str, size: int, *, bounds: Bounds | None
    ) -> None:
        """Ask for so many nodes of a group, and set its bounds or none. Raises Unavailable."""
        ...


def check_size(config: Config, group: str, size: int) -> None:
    """Refuse a size that the group may not have.

    Raises:
        UserError: there is no such group, control planes would be neither 1, 3 nor 5, or the size
            is outside the group's autoscaling.
    """
    known = config.node_groups.get(group)
    if known is None:
        raise UserError(
            f"expected one of {', '.join(config.node_groups)}, found {group[:60]!r}", where="GROUP"
        )
    if known.role is Role.CONTROL_PLANE and size not in CONTROL_PLANE_SIZES:
        raise UserError(
            f"expected 1, 3 or 5 control planes, found {size}",
            where="N",
            hint="etcd loses its quorum with half of them: an even number is no safer",
        )
    bounds = known.autoscaling
    if bounds is not None and not bounds.min <= size <= bounds.max:
        raise UserError(
            f"expected {bounds.min} to {bounds.max} nodes, found {size}",
            where="N",
            hint=f"nodeGroups.{group}.autoscaling in the configuration has these bounds",
        )


def means(config: Config, group: str, size: int) -> str:
    """Say what a lost node means on the way, for `--plan`; empty for workers."""
    known = config.node_groups[group]
    if known.role is not Role.CONTROL_PLANE or known.size == size:
        return ""
    step = 1 if size > known.size else -1
    way = ", ".join(
        f"{count} (survives the loss of {(count - 1) // 2})"
        for count in range(known.size, size + step, step)
    )
    return f"control planes on the way: {way}"


def _demand_settled(context: Context) -> State:
    """Give the state of a cluster that no roll-out changes.

    Raises:
        Conflict: the cluster was not initialised, or a roll-out goes on.
    """
    state = require_state(context)
    if is_rolling(current_policy(state)):
        raise Conflict(
            "a roll-out goes on: groups get another size once it is done",
            hint="`constellation upgrade apply` ends it, `status --watch` shows it",
        )
    return state


async def scale(context: Context, group: str, *, ask: SetSize, write: Callable[[], None]) -> State:
    """Bring a group to the size that the context's configuration has for it; waits for it.

    `write` writes the size into the user's configuration: once nothing speaks against it.

    Raises:
        Conflict: the cluster was not initialised, a roll-out goes on, or the provider has no room;
            nothing was changed.
        Unavailable: not within the context's `wait_s`; the same call goes on.
    """
    state, wanted = _demand_settled(context), context.config.node_groups[group]
    if context.ask_room is not None:
        await context.ask_room(state.uid, desired(context, state))
    write()
    if state.policy_before is not None and state.policy is not None:
        state = await hand_over(context, state, state.policy)
    machines = state.infrastructure.instances if state.infrastructure is not None else ()
    if wanted.most >= sum(m.group == group for m in machines):
        state = await _sign(context, state)
    asked = wanted.autoscaling
    bounds = Bounds(least=asked.min, most=asked.max) if asked is not None else None
    await ask(context.workspace.kubeconfig, group, wanted.size, bounds=bounds)
    state = await _wait(context, state, group)
    return await _sign(context, state)


async def _sign(context: Context, state: State) -> State:
    """Give every group the slots that the configuration has."""
    policy = current_policy(state)
    slots = {name: group.most for name, group in context.config.node_groups.items()}
    if policy.slots == slots:
        return state
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    following = dataclasses.replace(policy, serial=next_serial(state, policy), slots=slots)
    return await hand_over(context, state, sign_policy(following, owner.owner_key))


async def _wait(context: Context, state: State, group: str) -> State:
    """Wait until the group has its machines and every machine of the cluster is a Ready node.

    Where an autoscaler may have begun to move the group, every size that it may choose will do.
    """
    step, end = f"Group {group}", monotonic_s() + context.wait_s
    known = context.config.node_groups[group]
    size = known.size
    while True:
        try:
            made = await context.infrastructure(state.uid).observe()
            nodes = await context.list_nodes(context.workspace.kubeconfig)
        except Unavailable:
            made, nodes = None, ()
        machines = made.instances if made is not None else ()
        there = sum(m.group == group for m in machines)
        ready, wanted = sum(node.ready for node in nodes), wanted_machines(context.config, machines)
        detail = f"{there} of {size} machines, {ready} of {wanted} nodes Ready"
        settled = known.least <= there <= known.most
        if made is not None and settled and len(nodes) == ready == wanted:
            state = dataclasses.replace(state, infrastructure=made)
            write_state(context.workspace.state, state)
            context.report(Progress(step=step, detail=detail, finished=True))
            return state
        context.report(Progress(step=step, detail=detail))
        if monotonic_s() > end:
            raise Unavailable(
                f"group {group} has not {size} nodes within {context.wait_s:g} s: {detail}",
                hint="the operator goes on by itself; the same command looks again",
            )
        await asyncio.sleep(_LOOK_S)
