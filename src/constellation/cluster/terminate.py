"""How a cluster goes away: the provider removes everything; conf and master secret stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.config.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.cluster.context import Context

__all__ = ["Terminated", "terminate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """What was removed and what was kept."""

    removed: tuple[str, ...]
    kept: tuple[Path, ...]


async def terminate(context: Context) -> Terminated:
    """Remove the machines, then the files that only made sense with them; done already is fine."""
    workspace = context.workspace
    state = read_state(workspace.state)
    removed = []
    if state is not None:
        await context.infrastructure(state.uid).destroy(report=context.report)
        removed.append(f"machines, disks and network of {state.uid}")
    for path in (workspace.kubeconfig, workspace.kubectl, workspace.cluster_log, workspace.state):
        if path.exists():
            path.unlink()
            removed.append(str(path))
    kept = tuple(p for p in (workspace.config, workspace.master_secret) if p.exists())
    return Terminated(removed=tuple(removed), kept=kept)
