"""What `mini up` does: a cluster that runs and is verified, whatever was there before.

Nothing yet: everything from the beginning. A half-made one: the rest. One that was stopped: the
same machines again, with their disks, recovered. One that runs: verified, and said so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.clock import monotonic_s
from constellation.base.errors import Unavailable
from constellation.base.progress import Progress
from constellation.cluster import apply, kubectl
from constellation.cluster.recover import recover
from constellation.cluster.steps import ready
from constellation.cluster.verify import verify
from constellation.config.state import read_state

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.cluster.verify import Verified
    from constellation.config.state import State

__all__ = ["Up", "up"]

_VERIFY_S = 60.0
_LOOK_S = 3.0
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """How it went: `already` True where the cluster ran before."""

    state: State
    verified: tuple[Verified, ...]
    already: bool


async def up(context: Context) -> Up:
    """Bring the cluster up and verify every node.

    Raises:
        ConstellationError: whichever step failed; the same call goes on from there.
    """
    already = await _runs(context)
    if already:
        state = apply.require_state(context)
        await kubectl.ensure(context, state)
    else:
        state = await apply.create(context)
        if state.cluster_ca and context.workspace.kubeconfig.exists():
            await _revive(context, state)
        state, _ = await apply.initialise(context)
    verified = await verify(context, state, cluster_id=None, deadline_s=_VERIFY_S)
    for node in verified:
        if node.error is not None:
            raise node.error
    return Up(state=state, verified=verified, already=already)


async def _runs(context: Context) -> bool:
    state = read_state(context.workspace.state)
    if state is None or not state.cluster_ca or not context.workspace.kubeconfig.exists():
        return False
    observed = await apply.observe(context, state)
    wanted = sum(group.least for group in context.config.node_groups.values())
    return bool(observed.nodes) and not ready.missing(observed.nodes, wanted=wanted)


async def _revive(context: Context, state: State) -> None:
    """Recover control planes that wait for their disk keys, until the API answers."""
    end = monotonic_s() + context.wait_s
    while True:
        try:
            await context.list_nodes(context.workspace.kubeconfig)
        except Unavailable:
            if monotonic_s() > end:
                raise
        else:
            return
        context.report(Progress(step="Recover the cluster", detail="looking for waiting nodes"))
        if await recover(context, state, deadline_s=_LOOK_S):
            context.report(Progress(step="Recover the cluster", finished=True))
        await asyncio.sleep(_PAUSE_S)
