"""How the user gets a kubectl of the cluster's version: from the cache, beside the kubeconfig."""

from __future__ import annotations

import filecmp
import shutil
from typing import TYPE_CHECKING

from constellation.base.progress import Progress
from constellation.trust import artifact_list

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.cluster.context import Context
    from constellation.config.state import State

__all__ = ["ensure", "follow"]

_NAME = "kubectl"


def ensure(context: Context, state: State) -> None:
    """Put the kubectl of the cluster's artifact list into the workspace, unless it is there."""
    source, target = _source(context, state), context.workspace.kubectl
    # two patch versions are of the same size
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    part = target.with_name(".kubectl.part")
    shutil.copyfile(source, part)
    part.chmod(0o755)
    part.replace(target)


def follow(context: Context, state: State) -> None:
    """Do the same after an upgrade, if the cache has it: on a cloud nodes fetch their own files.

    The old one stays otherwise; kubectl may be one minor version older than API servers.
    """
    version = state.kubernetes_version
    if not _source(context, state).exists():
        hint = f"`constellation artifacts mirror --kubernetes {version}`, then the same again"
        context.report(Progress(step=_NAME, detail=f"{version} is not in the cache: {hint}"))
        return
    ensure(context, state)


def _source(context: Context, state: State) -> Path:
    digest = artifact_list.parse(state.artifact_list).get(_NAME).sha256
    return context.supplies.cache / "sha256" / digest
