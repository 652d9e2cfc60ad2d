"""Which Python packages come with a node? Those of os/requirements-node.lock, by digest.

pip downloads wheels for the node's Python (3.13, manylinux) and checks each against the lock;
nothing is built and nothing of a package is run. A wheel is hashed again when it is unpacked.
Sources: PEP 427 (wheel), pip's "Secure installs".
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.errors import FormatError, Untrusted
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.progress import Report

__all__ = ["Wheel", "fetch", "parse_lock", "unpack"]

PYTHON = "3.13"
_GLIBC_MINORS = (41, 40, 39, 38, 36, 35, 34, 31, 28, 27, 24, 17, 12, 5)
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in _GLIBC_MINORS),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
_DOWNLOAD_TIMEOUT_S = 600.0
_STEP = "node image"
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.!+_-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel: project name, version, SHA-256 (32 bytes) of its file, and the file's name."""

    name: str
    version: str
    sha256: bytes
    file: str


def parse_lock(text: str) -> dict[tuple[str, str], frozenset[bytes]]:
    """Read a lock (pip's requirements format): (name, version) -> SHA-256 digests that may come.

    Raises:
        FormatError: a line that is no pin, or a pin without a digest.
    """
    result: dict[tuple[str, str], frozenset[bytes]] = {}
    joined = text.replace("\\\n", " ")
    for number, line in enumerate(joined.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        pin = _PIN.match(words[0])
        digests = frozenset(
            bytes.fromhex(w.removeprefix("--hash=sha256:"))
            for w in words
            if w.startswith("--hash=sha256:")
        )
        if pin is None or not digests:
            raise FormatError(f"lock, entry {number}: {line[:80]!r} is no pin with a digest")
        result[_normal(pin["name"]), pin["version"]] = digests
    return result


async def fetch(lock: Path, *, folder: Path, report: Report) -> tuple[Wheel, ...]:
    """Download what the lock names and `folder` lacks; give the wheels sorted by name.

    Raises:
        Unavailable: pip found or got no fitting file.
        Untrusted: a file in `folder` has a digest that the lock does not name.
    """
    pins = parse_lock(await asyncio.to_thread(lock.read_text))
    present = {_identity(path) for path in _present(folder)}
    if not pins.keys() <= present:
        report(Progress(step=_STEP, detail="downloading Python packages", total=len(pins)))
        target = ("--python-version", PYTHON, "--implementation", "cp")
        abis = ("--abi", "cp313", "--abi", "abi3", "--abi", "none")
        platforms = tuple(word for p in _PLATFORMS for word in ("--platform", p))
        await proc.run(
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--require-hashes", "--only-binary", ":all:", *target, *abis, *platforms,
            "--dest", folder, "--requirement", lock,
            timeout_s=_DOWNLOAD_TIMEOUT_S,
        )  # fmt: skip
    return await asyncio.to_thread(_checked, folder, pins)


def _checked(folder: Path, pins: dict[tuple[str, str], frozenset[bytes]]) -> tuple[Wheel, ...]:
    found = []
    for path in _present(folder):
        name, version = _identity(path)
        if (name, version) not in pins:
            continue  # of an earlier lock
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest not in pins[name, version]:
            path.unlink()
            raise Untrusted(f"{path.name}: SHA-256 {digest.hex()} is not in the lock")
        found.append(Wheel(name=name, version=version, sha256=digest, file=path.name))
    if missing := sorted(pins.keys() - {(w.name, w.version) for w in found}):
        raise Untrusted(f"wheel of {missing[0][0]} {missing[0][1]} is missing")
    return tuple(sorted(found, key=lambda w: w.name))


def unpack(wheels: tuple[Wheel, ...], *, folder: Path, target: Path) -> None:
    """Unpack wheels into one folder: packages and their metadata, no scripts, headers or data.

    Raises:
        FormatError: a name in a wheel leads out of the folder.
        Untrusted: a file is not the one that was checked.
    """
    for wheel in wheels:
        path = folder / wheel.file
        if hashlib.sha256(path.read_bytes()).digest() != wheel.sha256:
            raise Untrusted(f"{wheel.file} changed after it was checked")
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                parts = name.split("/")
                if name.startswith("/") or ".." in parts:
                    raise FormatError(f"{wheel.file}: {name[:80]!r} leads out of the folder")
                if name.endswith("/") or parts[0].endswith(".data") or "tests" in parts[:-1]:
                    continue
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, (target / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)


def _present(folder: Path) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(sorted(folder.glob("*.whl")))


def _identity(path: Path) -> tuple[str, str]:
    name, version = path.name.split("-")[:2]
    return _normal(name), version


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
