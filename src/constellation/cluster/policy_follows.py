"""How the policy of a cluster that runs follows the configuration in one thing, and in no other.

For what control planes and nodes read in the policy: artifact sources, a sealed provider access.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.progress import Progress
from constellation.cluster.current_policy import current_policy, next_serial
from constellation.cluster.policy_hand_over import hand_over
from constellation.cluster.secrets import read_secrets
from constellation.trust.cluster_policy import sign_policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from constellation.cluster.context import Context
    from constellation.config.state import State
    from constellation.trust.cluster_policy import ClusterPolicy

    Changed = Callable[[Context, State, ClusterPolicy], Awaitable[ClusterPolicy]]

__all__ = ["follow"]


async def follow(
    context: Context, state: State, *, changed: Changed, step: str, begun: str, done: str
) -> State:
    """Hand over what `changed` makes of the policy; the same one: nothing happens.

    One whose hand-over was interrupted is finished first, also where it says all that is wanted.
    `done` ends the step; empty: its caller does.

    Raises:
        Conflict: the cluster was not initialised.
        Unavailable: not every control plane obeys it yet; the same call again goes on.
    """
    if state.policy_before is not None and state.policy is not None:
        state = await hand_over(context, state, state.policy)
    policy = current_policy(state)
    following = await changed(context, state, policy)
    if following == policy:
        return state
    following = dataclasses.replace(following, serial=next_serial(state, policy))
    owner = read_secrets(context.workspace, cluster_id=state.cluster_id)
    context.report(Progress(step=step, detail=begun))
    state = await hand_over(context, state, sign_policy(following, owner.owner_key))
    if done:
        context.report(Progress(step=step, detail=done, finished=True))
    return state
