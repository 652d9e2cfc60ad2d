"""How the user gets a kubectl of the cluster's version: from the cache, beside the kubeconfig."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from constellation.trust import artifact_list

if TYPE_CHECKING:
    from constellation.cluster.context import Context
    from constellation.config.state import State

__all__ = ["ensure"]

_NAME = "kubectl"


def ensure(context: Context, state: State) -> None:
    """Put the kubectl of the cluster's artifact list into the workspace, unless it is there."""
    digest = artifact_list.parse(state.artifact_list).get(_NAME).sha256
    source, target = context.supplies.cache / "sha256" / digest, context.workspace.kubectl
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    part = target.with_name(".kubectl.part")
    shutil.copyfile(source, part)
    part.chmod(0o755)
    part.replace(target)
