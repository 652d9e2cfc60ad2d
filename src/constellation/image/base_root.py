"""The part of an image that only packages decide: a tar stream, built as root, kept by digest.

`root_build` runs as another process, with sudo unless we are root; it gets its order on standard
input and its result is written to a file that this side opened. The stream is kept with its
digest; one that no longer fits is built again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.image import packages, root_build
from constellation.image.sources import os_folder, package_folder

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.image.packages import PackageSet

__all__ = ["BaseRoot", "cached", "ensure_base_root", "remember", "root_prefix"]

_STEP = "node image"
_TIMEOUT_S = 1200.0
# isolated: neither the user's environment nor the current folder decides what runs as root
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from constellation.image.root_build import main; main()"
)
_KEPT_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRoot:
    """The packages' file system as a tar stream without end marks, and what it was made of."""

    stream: Path
    packages: PackageSet
    names: frozenset[str]
    folders: frozenset[str]


def root_prefix() -> tuple[str, ...]:
    """Give the words that make a command run as root: none for root, else sudo without asking."""
    return () if os.geteuid() == 0 else ("sudo", "-n")


async def ensure_base_root(cache: Path, report: Report) -> BaseRoot:
    """Give the base root for os/packages.txt.

    Raises:
        Unavailable: packages could not be fetched or installed, or sudo was not granted.
        UserError: the host lacks Debian's archive keyring or a mirror.
    """
    text = await asyncio.to_thread((os_folder() / "packages.txt").read_text)
    names = packages.parse_names(text)
    image = cache / "image"
    found = await packages.fetch(names, folder=image / "apt-node", step=_STEP, report=report)
    recipe = await asyncio.to_thread(Path(root_build.__file__).read_bytes)
    key = hashlib.sha256(packages.digest(found) + hashlib.sha256(recipe).digest()).hexdigest()
    stream = image / f"base-{key[:16]}.tar"
    if not await asyncio.to_thread(cached, stream):
        await _build(found, stream, report)
    names_in, folders = await asyncio.to_thread(_listing, stream)
    return BaseRoot(stream=stream, packages=found, names=names_in, folders=folders)


def cached(path: Path) -> bool:
    """Say whether a file has the digest that `remember` wrote beside it."""
    try:
        wanted = path.with_name(f"{path.name}.sha256").read_text().strip()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted
    except FileNotFoundError:
        return False


def remember(path: Path) -> None:
    """Write the digest of a finished file beside it (NAME.sha256)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomic(path.with_name(f"{path.name}.sha256"), f"{digest}\n".encode())


async def _build(found: PackageSet, stream: Path, report: Report) -> None:
    order = root_build.Order(
        debs=tuple(
            root_build.OrderedDeb(path=str(found.folder / deb.file), sha256=deb.sha256)
            for deb in found.debs
        ),
        time=found.time,
    )
    handle, name = tempfile.mkstemp(dir=stream.parent, prefix=".base-")
    try:
        with os.fdopen(handle, "wb") as output:
            await _run_as_root(decode.dump(order), output.fileno(), report)
        await asyncio.to_thread(Path(name).replace, stream)
        await asyncio.to_thread(remember, stream)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()  # noqa: ASYNC240 - one call while leaving
        raise


async def _run_as_root(order: bytes, output: int, report: Report) -> None:
    argv = (*root_prefix(), sys.executable, "-I", "-c", _START, str(package_folder().parent))
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=output,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=not root_prefix(),  # sudo's ticket belongs to the terminal's session
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stderr is not None  # noqa: S101
    kept: list[str] = []
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            process.stdin.write(order)
            await process.stdin.drain()
            process.stdin.close()
            async for raw in process.stderr:
                line = raw.decode(errors="replace").strip()
                kept = [*kept, line][-_KEPT_LINES:]
                report(_progress(line))
            await process.wait()
    except (TimeoutError, asyncio.CancelledError, ConnectionError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise Unavailable(f"building the node's root: {' | '.join(kept) or error}") from error
    if process.returncode != 0:
        raise Unavailable(
            f"building the node's root ended with {process.returncode}: {' | '.join(kept)}",
            hint="" if not root_prefix() else "run `sudo -v` first, or run as root",
        )


def _progress(line: str) -> Progress:
    words = line.split()
    if len(words) == 3 and words[0] == "unpack" and words[1].isdigit() and words[2].isdigit():  # noqa: PLR2004
        return Progress(
            step=_STEP,
            detail="unpacking packages",
            done=int(words[1]),
            total=int(words[2]),
            unit="packages",
        )
    return Progress(step=_STEP, detail=f"{line} packages"[:120])


def _listing(stream: Path) -> tuple[frozenset[str], frozenset[str]]:
    with tarfile.open(stream, mode="r:") as tar:
        members = tar.getmembers()
    return frozenset(m.name for m in members), frozenset(m.name for m in members if m.isdir())
