"""How a cluster goes away: the provider removes everything; conf and master secret stay.

A state file that is lost or damaged does not keep machines alive: the provider's own marks say
which of them were made from this workspace, and only those go. What Kubernetes made beside them
(`cloud_leavings`) goes first, or is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable, UserError
from constellation.base.progress import Progress
from constellation.cluster.cloud_leavings import hint_on_leavings, remove_balancers
from constellation.config.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.cluster.cloud_leavings import Leavings
    from constellation.cluster.context import Context

__all__ = ["Terminated", "clusters", "terminate"]


_BALANCERS_S = 300.0
"""For so long a controller manager may take to remove the load balancers of all Services."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """What was removed, what was kept, and what stays in the cloud or may be left there."""

    removed: tuple[str, ...]
    kept: tuple[Path, ...]
    left: tuple[str, ...] = ()


def clusters(context: Context) -> tuple[str, ...]:
    """Give the uids that belong to this workspace: the state file's and the provider's marks."""
    try:
        state = read_state(context.workspace.state)
    except UserError as error:
        context.report(Progress(step="Look for the cluster", detail=str(error), finished=True))
        state = None
    named = () if state is None else (state.uid,)
    return tuple(dict.fromkeys((*named, *context.owned())))


async def terminate(
    context: Context, *, leavings: Leavings | None = None, balancers_s: float = _BALANCERS_S
) -> Terminated:
    """Remove the machines, then the files that only made sense with them; done already is fine.

    `leavings`: what `look_before_removal` found; None: no cloud's components ran in this cluster.

    Raises:
        Unavailable: the provider did not remove everything; says what is left and where to look.
    """
    workspace = context.workspace
    removed, left = [], await _kubernetes_first(context, leavings, wait_s=balancers_s)
    for uid in clusters(context):
        try:
            await context.infrastructure(uid).destroy(report=context.report)
        except Unavailable as error:
            if leavings is None:
                raise
            hint = hint_on_leavings(context.config.provider.name, uid)
            raise Unavailable("; ".join((str(error), *left)), hint=hint) from error
        if not context.keeps_machines:
            removed.append(f"machines, disks and network of {uid}")
    for path in (workspace.kubeconfig, workspace.kubectl, workspace.cluster_log, workspace.state):
        if path.exists():
            path.unlink()
            removed.append(str(path))
    kept = tuple(p for p in (workspace.config, workspace.master_secret) if p.exists())
    return Terminated(removed=tuple(removed), kept=kept, left=left)


async def _kubernetes_first(
    context: Context, leavings: Leavings | None, *, wait_s: float
) -> tuple[str, ...]:
    """Delete Services that have a load balancer; gives what stays in the cloud, or may."""
    if leavings is None or context.keeps_machines:
        return ()
    if leavings.why:
        return leavings.lines()
    left = leavings.staying()
    if leavings.balancers:
        kubeconfig = context.workspace.kubeconfig
        left += await remove_balancers(kubeconfig, wait_s=wait_s, report=context.report)
    return left
