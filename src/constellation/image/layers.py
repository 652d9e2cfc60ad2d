"""How Python code gets into an image: compiled by the node's own Python, then packed.

.pyc files carry no time and are not checked against their source (PEP 552, unchecked hash): the
image is read-only and measured. The compiler is Python 3.13 of the tools root, the version that
runs on the node.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.base.tools_root import command
from constellation.image import wheels
from constellation.image.base_root import cached, remember
from constellation.image.programs import file_entries
from constellation.image.tree import END, pack

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.image.tree import Entry
    from constellation.image.wheels import Wheel

__all__ = ["compiled", "squash", "wheels_layer"]

_PYTHON = f"python{wheels.PYTHON}"
_COMPILE_TIMEOUT_S = 300.0
_SQUASH_TIMEOUT_S = 300.0
_LEVEL = "6"
_BLOCK_BYTES = str(256 * 1024)


async def wheels_layer(
    found: tuple[Wheel, ...], *, folder: Path, below: str, tools: Path, time: int,
    existing: frozenset[str], report: Report,
) -> Path:  # fmt: skip
    """Give a tar stream with all wheels, compiled, below the path `below`; kept by digest."""
    digests = " ".join(w.sha256.hex() for w in found)
    key = hashlib.sha256(f"{below} {time} {tools.name} {digests}".encode()).hexdigest()
    stream = folder.parent / f"wheels-{key[:16]}.tar"
    if not await asyncio.to_thread(cached, stream):
        report(Progress(step="node image", detail="compiling Python packages"))
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheels-") as work:
            target = Path(work)
            await asyncio.to_thread(wheels.unpack, found, folder=folder, target=target)
            entries = await compiled(target, below=below, tools=tools)
        data = pack(entries, time=time, existing=existing)
        await asyncio.to_thread(write_atomic, stream, data)
        await asyncio.to_thread(remember, stream)
        report(Progress(step="node image", detail="compiling Python packages", finished=True))
    return stream


async def compiled(folder: Path, *, below: str, tools: Path) -> tuple[Entry, ...]:
    """Compile everything in `folder` as if it lay at /`below`, and give all its files."""
    python = command(tools, _PYTHON)
    options = ("-q", "-f", "-j1", "--invalidation-mode", "unchecked-hash")
    await proc.run(
        *python, "-S", "-s", "-B", "-m", "compileall", *options, "-s", folder, "-p", f"/{below}",
        folder,
        timeout_s=_COMPILE_TIMEOUT_S,
        env={"PYTHONHOME": f"{tools}/usr", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return await asyncio.to_thread(file_entries, folder, below=below)


async def squash(streams: tuple[bytes, ...], output: Path, *, tools: Path, time: int) -> None:
    """Make a squashfs (zstd) of joined tar streams; a function of their bytes and of `time`.

    Source: sqfstar(1), squashfs-tools 4.6: every time in the file system is given.
    """
    await asyncio.to_thread(output.unlink, missing_ok=True)
    await proc.run(
        *command(tools, "sqfstar"), "-quiet", "-no-progress", "-comp", "zstd",
        "-Xcompression-level", _LEVEL, "-b", _BLOCK_BYTES, "-mkfs-time", str(time),
        "-all-time", str(time), "-root-mode", "0755", "-root-uid", "0", "-root-gid", "0",
        "-no-xattrs", output,
        timeout_s=_SQUASH_TIMEOUT_S,
        stdin=b"".join((*streams, END)),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
