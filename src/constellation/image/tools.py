"""Where do swtpm, haproxy, nft, mksquashfs and nspawn come from? A Debian 13 folder in the cache.

Made by unpacking packages (os/tools.txt), without being root and without running their scripts:
the programs are started by this folder's own loader (`constellation.base.tools_root.command`).
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

__all__ = ["ensure_tools_root"]

_STEP = "tools root"
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
    found = await packages.fetch(names, folder=image / "apt-tools", step=_STEP, report=report)
    root = image / f"tools-{packages.digest(found).hex()[:16]}"
    if not root.exists():
        await _unpack(found, root, report)
    write_atomic(current, f"{wanted} {root.name}\n".encode())
    report(Progress(step=_STEP, detail=root.name, finished=True))
    return root


async def _unpack(found: PackageSet, root: Path, report: Report) -> None:
    work = Path(tempfile.mkdtemp(dir=root.parent, prefix=".tools-"))
    try:
        for number, deb in enumerate(found.debs):
            report(
                Progress(
                    step=_STEP,
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
