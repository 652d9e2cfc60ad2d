"""How the user gets a kubectl of the cluster's version: from the cache, beside the kubeconfig.

On a cloud the cache need not have it: it comes from where the nodes fetch theirs, by its digest.
"""

from __future__ import annotations

import filecmp
import shutil
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError
from constellation.base.file_server import USUAL_PACE
from constellation.base.progress import Progress
from constellation.releases.delivery import Patience, deliver
from constellation.trust import artifact_list
from constellation.trust.artifact_sources import parse_sources

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.cluster.context import Context
    from constellation.config.state import State

__all__ = ["ensure"]

_NAME = "kubectl"
_PATIENCE = Patience(first_pause_s=1.0, longest_pause_s=5.0, in_all_s=15.0)


async def ensure(context: Context, state: State) -> None:
    """Put the kubectl of the cluster's artifact list into the workspace, unless it is there.

    Without it the cluster runs as well, and an old one stays: it may be one minor version older
    than API servers.
    """
    wanted = artifact_list.parse(state.artifact_list).get(_NAME)
    folder = context.supplies.cache / "sha256"
    source = folder / wanted.sha256
    if not source.exists():
        sources = parse_sources(context.config.artifacts.sources)
        try:
            await deliver(
                (wanted,), folder=folder, sources=sources, door=context.door, pace=USUAL_PACE,
                patience=_PATIENCE,
            )  # fmt: skip
        except ConstellationError as error:
            version = state.kubernetes_version
            hint = f"`constellation artifacts mirror --kubernetes {version}`, then the same again"
            detail = f"{version} is not in the cache ({error}): {hint}"
            context.report(Progress(step=_NAME, detail=detail))
            return
    _copy(source, context.workspace.kubectl)


def _copy(source: Path, target: Path) -> None:
    # two patch versions are of the same size
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    part = target.with_name(".kubectl.part")
    shutil.copyfile(source, part)
    part.chmod(0o755)
    part.replace(target)
