"""Where do swtpm, haproxy, nft, mksquashfs and nspawn come from? A Debian 13 folder in the cache.

Made by unpacking packages (os/tools.txt; what only a VM's disk needs: os/machine.txt), without
being root and without running their scripts: the programs are started by this folder's own loader
(`constellation.base.tools_root.command`).
The folder's name is the digest of its packages; an unfinished one is never seen under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.image import packages
from constellation.image.sources import os_folder

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.image.packages import PackageSet

__all__ = ["ensure_tools_root", "ensure_unpacked"]

_UNPACK_TIMEOUT_S = 120.0


async def ensure_tools_root(cache: Path, report: Report) -> Path:
    """Give the folder of the tools root, made on first use or when os/tools.txt changed.

    A warm call reads one small file: `image/tools.current` names list and folder.

    Raises:
        Unavailable: packages could not be fetched or unpacked.
        UserError: the host lacks Debian's archive keyring or a mirror.
    """
    text = (os_folder() / "tools.txt").read_text()
    names = packages.parse_names(text)
    image = cache / "image"
    current = image / "tools.current"
    wanted = hashlib.sha256(" ".join(names).encode()).hexdigest()
    with contextlib.suppress(FileNotFoundError, ValueError):
        listed, folder = current.read_text().split()
        if listed == wanted and (image / folder / "usr/lib").is_dir():
            return image / folder
    root, _ = await ensure_unpacked(cache, "tools", step="tools root", report=report)
    write_atomic(current, f"{wanted} {root.name}\n".encode())
    return root


async def ensure_unpacked(
    cache: Path, name: str, *, step: str, report: Report
) -> tuple[Path, PackageSet]:
    """Give the folder with the unpacked packages of os/NAME.txt, and which they are.

    Raises:
        Unavailable: packages could not be fetched or unpacked.
        UserError: the host lacks Debian's archive keyring or a mirror.
    """
    image = cache / "image"
    names = packages.parse_names((os_folder() / f"{name}.txt").read_text())
    found = await packages.fetch(names, folder=image / f"apt-{name}", step=step, report=report)
    root = image / f"{name}-{packages.digest(found).hex()[:16]}"
    if not root.exists():
        await _unpack(found, root, step=step, report=report)
    report(Progress(step=step, detail=root.name, finished=True))
    return root, found


async def _unpack(found: PackageSet, root: Path, *, step: str, report: Report) -> None:
    work = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    try:
        for number, deb in enumerate(found.debs):
            report(
                Progress(
                    step=step,
                    detail=f"unpacking {deb.name}",
                    done=number,
                    total=len(found.debs),
                    unit="packages",
                )
            )
            await proc.run(
                "dpkg-deb", "--extract", found.folder / deb.file, work, timeout_s=_UNPACK_TIMEOUT_S
            )
        await asyncio.to_thread(_move, work, root)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        raise


def _move(work: Path, root: Path) -> None:
    work.chmod(0o755)
    work.rename(root)
