"""What `mini down` takes away besides the cluster: its files, and with --purge the cache.

A file that somebody else put into the workspace stays, and is named. The cache is not purged while
clusters of other workspaces need it to start again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from constellation.config.workspace import Workspace

__all__ = ["check_purge", "purge", "remove_files"]

_OURS = (".constellation.lock", ".kubectl.part", ".tampered-image.squashfs")
_WRITABLE = 0o700


def remove_files(
    workspace: Workspace, *, example: bytes
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove the secrets of a cluster that is gone, the conf if it is still `example`, the folder.

    Gives what was removed and what was kept because it is not ours.
    """
    doomed = [workspace.master_secret]
    if workspace.config.exists() and workspace.config.read_bytes() == example:
        doomed.append(workspace.config)
    removed = [path for path in doomed if path.exists()]
    for path in (*removed, *(workspace.folder / name for name in _OURS)):
        path.unlink(missing_ok=True)
    kept = sorted(workspace.folder.iterdir()) if workspace.folder.is_dir() else []
    if not kept and workspace.folder.is_dir():
        workspace.folder.rmdir()
        removed.append(workspace.folder)
    return tuple(map(str, removed)), tuple(map(str, kept))


def check_purge(cache: Path, *, clusters: Mapping[str, Path], gone: tuple[str, ...]) -> None:
    """Demand that no cluster of this user but those of `gone` needs the cache.

    Raises:
        Conflict: one does.
    """
    others = {u: folder for u, folder in clusters.items() if u not in gone and _mine(folder)}
    for uid, folder in others.items():
        raise Conflict(
            f"{cache} is not purged: cluster {uid} of {folder} needs it to start again",
            hint=f"`constellation -C {folder} mini down` first, or leave out --purge",
        )


def purge(cache: Path) -> bool:
    """Remove the cache folder, also the parts that Go made read-only; False where there is none."""
    if not cache.is_dir():
        return False
    shutil.rmtree(cache, onerror=_again)
    return True


def _again(act: Callable[..., object], name: str, _error: object) -> None:
    # Go's module cache has folders without the right to write, in which nothing can be removed
    path = Path(name)
    for folder in (path.parent, path):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(_WRITABLE)
    if act in (os.unlink, os.rmdir):
        act(name)
    else:
        shutil.rmtree(name)


def _mine(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.geteuid()
    except OSError:
        return False
