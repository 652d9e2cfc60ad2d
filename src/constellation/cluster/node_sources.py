"""Where nodes fetch artifacts, as the conf names it: in the owner's policy, from init on.

The addresses are no trust, so that a policy which says nothing else new carries them to the control
planes, which hand it to whoever joins or comes back. Source: ADR 104.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import UserError
from constellation.base.progress import Progress
from constellation.cluster.current_policy import current_policy
from constellation.cluster.policy_follows import follow

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.config.state import State
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["demand_source", "follow_sources", "lacks_source", "sources_differ", "warn_without"]

_STEP = "Artifact sources"
_WHERE = "artifacts.sources"
_HINT = (
    "serve what `constellation artifacts mirror --to FOLDER` writes: docs/how-to/serve-artifacts.md"
)


def lacks_source(context: Context) -> bool:
    """Say whether nodes would have nowhere to fetch from; the local cloud's are given theirs."""
    config = context.config
    return config.provider.local is None and not config.artifacts.sources


def warn_without(context: Context) -> None:
    """Tell the user while only machines are made; `init` demands one."""
    if lacks_source(context):
        detail = f"warning: none is named ({_WHERE}), and no node starts without one: {_HINT}"
        context.report(Progress(step=_STEP, detail=detail, finished=True))


def demand_source(context: Context) -> None:
    """Refuse before anything secret moves to a node that could not go on.

    Raises:
        UserError: the conf names none.
    """
    if lacks_source(context):
        where = f"{context.workspace.config.name}: {_WHERE}"
        raise UserError("nodes have nowhere to fetch Kubernetes from", where=where, hint=_HINT)


def sources_differ(context: Context, state: State) -> bool:
    """Say whether `follow_sources` would hand over others; the local provider's are none."""
    if state.policy is None:
        return False
    return current_policy(state).artifact_sources != context.config.artifacts.sources


async def follow_sources(context: Context, state: State) -> State:
    """Let nodes fetch from where the configuration says now; nothing new: nothing happens.

    Raises:
        Unavailable: not every control plane obeys it yet; the same command goes on.
    """
    if state.policy is None:
        return state
    return await follow(
        context,
        state,
        changed=_with_sources,
        step=_STEP,
        begun="nodes get others",
        done="every control plane has them",
    )


async def _with_sources(context: Context, state: State, policy: ClusterPolicy) -> ClusterPolicy:
    del state
    return dataclasses.replace(policy, artifact_sources=context.config.artifacts.sources)
