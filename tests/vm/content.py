"""The machine's second disk: this clone and its warm cache, so that nothing is built inside.

Files of the cache are linked, not copied, into the folder that the disk image is made of; what only
building needs (Go, its caches) stays out, and so do images of other sources. Inside, the disk is
mounted on /srv/content.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.progress import Progress
from tests.vm.root import make_disk

if TYPE_CHECKING:
    from constellation.base.progress import Report

HERE = Path(__file__).resolve().parent
CLONE = HERE.parents[1]
_NOT_SHARED = (".", "env", "go", "keystone", "terraform", "toolchain", "vm")
_ROOM_BYTES = 2 * 1024**3  # what the cache may grow by, and the file system's own


async def make_content(
    folder: Path,
    *,
    cache: Path,
    built: tuple[Path, ...],
    environment: Path,
    tools: Path,
    report: Report,
) -> Path:
    """Write the disk image anew.

    `built` the folders of image/ that these sources made; `environment` the folder env/ that the
    root came with.
    """
    report(Progress(step="machine's content", detail="cache and clone"))
    disk = folder / "content.ext4"
    disk.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".content-") as name:
        stage = Path(name)
        await asyncio.to_thread(_stage, stage, cache=cache, built=built, environment=environment)
        size = sum(f.lstat().st_blocks * 512 for f in stage.rglob("*")) + _ROOM_BYTES
        await make_disk(stage, disk, size=f"{size // 1024**2}M", label="content", tools=tools)
    return disk


def _stage(stage: Path, *, cache: Path, built: tuple[Path, ...], environment: Path) -> None:
    shutil.copyfile(HERE / "agent.py", stage / "agent.py")
    target = stage / "cache/constellation"
    target.mkdir(parents=True)

    def others(folder: str, names: list[str]) -> set[str]:
        """Name what is left out: other runs' unfinished work, and what other sources made."""
        made = {
            name
            for name in names
            if Path(folder) == cache / "image"
            and name.startswith(("constellation-", "tools-"))
            and Path(folder) / name not in built
        }
        unfinished = (
            {n for n in names if n.startswith(".")} if Path(folder).parent == cache else set()
        )
        return made | unfinished

    for entry in cache.iterdir():
        if entry.name.startswith(_NOT_SHARED):
            continue
        if entry.is_dir():
            # a link to a file that another run replaces stays what it was
            shutil.copytree(
                entry, target / entry.name, symlinks=True, copy_function=os.link, ignore=others
            )
        else:
            shutil.copyfile(entry, target / entry.name)
    shutil.copytree(environment, target / "env", symlinks=True, copy_function=os.link)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CLONE, check=True, capture_output=True, timeout=60,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        source, copy = CLONE / name, stage / "clone" / name
        if source.is_symlink() or source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
