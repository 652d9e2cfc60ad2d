"""How a cluster goes away: the provider removes everything; conf and master secret stay.

A state file that is lost or damaged does not keep machines alive: the provider's own marks say
which of them were made from this workspace, and only those go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import UserError
from constellation.base.progress import Progress
from constellation.config.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.cluster.context import Context

__all__ = ["Terminated", "clusters", "terminate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """What was removed and what was kept."""

    removed: tuple[str, ...]
    kept: tuple[Path, ...]


def clusters(context: Context) -> tuple[str, ...]:
    """Give the uids that belong to this workspace: the state file's and the provider's marks."""
    try:
        state = read_state(context.workspace.state)
    except UserError as error:
        context.report(Progress(step="Look for the cluster", detail=str(error), finished=True))
        state = None
    named = () if state is None else (state.uid,)
    return tuple(dict.fromkeys((*named, *context.owned())))


async def terminate(context: Context) -> Terminated:
    """Remove the machines, then the files that only made sense with them; done already is fine."""
    workspace = context.workspace
    removed = []
    for uid in clusters(context):
        await context.infrastructure(uid).destroy(report=context.report)
        if not context.keeps_machines:
            removed.append(f"machines, disks and network of {uid}")
    for path in (workspace.kubeconfig, workspace.kubectl, workspace.cluster_log, workspace.state):
        if path.exists():
            path.unlink()
            removed.append(str(path))
    kept = tuple(p for p in (workspace.config, workspace.master_secret) if p.exists())
    return Terminated(removed=tuple(removed), kept=kept)
