"""Artifacts are checked against the list, again at each boot, and only then linked to be run.

Files are hashed where they lie: on the local cloud's workstation, or on a state disk with integrity
(design, section 10, "Disks"; `artifact_shelf` says which).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from constellation.base.errors import Rejected, Unavailable
from constellation.base.files import copy_digest
from constellation.kube import cni
from constellation.trust.artifact_list import ArtifactKind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from constellation.trust.artifact_list import Artifact, ArtifactList

__all__ = ["check_all", "link_programs", "mounted", "read_checked", "used_by_nodes"]

_NODE_KINDS = (ArtifactKind.BINARY, ArtifactKind.CONTENT, ArtifactKind.ARCHIVE)
"""Images come inside the content; their own archives are for a cache that has none yet."""
_AT_ONCE = 2


def used_by_nodes(artifacts: ArtifactList) -> tuple[Artifact, ...]:
    """Give the files that every node uses, at each boot."""
    return tuple(a for a in artifacts.artifacts if a.kind in _NODE_KINDS)


async def check_all(wanted: Iterable[Artifact], *, store: Path) -> None:
    """Hash these files below `store`/sha256.

    Raises:
        Rejected: names each artifact whose digest or size is another one, found and expected.
        Unavailable: a file is not there.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(artifact: Artifact) -> str:
        async with gate:
            return await asyncio.to_thread(_judge, artifact, store)

    findings = await asyncio.gather(*(one(a) for a in wanted))
    if refused := tuple(f for f in findings if f):
        raise Rejected(
            refused, hint="`constellation artifacts mirror` fetches a damaged artifact again"
        )


def link_programs(artifacts: ArtifactList, *, store: Path, programs: Path, plugins: Path) -> None:
    """Link checked programs by name into `programs`, CNI plugins into `plugins`."""
    for artifact in artifacts.of_kind(ArtifactKind.BINARY):
        folder = plugins if artifact.name in cni.PLUGINS else programs
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / artifact.name
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(store / "sha256" / artifact.sha256)


def mounted(artifact: Artifact, *, host: Path) -> Path:
    """Give the folder where the machine mounted a squashfs artifact.

    Raises:
        Unavailable: it did not.
    """
    path = host / "mounted" / artifact.sha256
    if not os.path.ismount(path):
        raise Unavailable(
            f"artifact {artifact.name} is not mounted at {path}",
            hint="the machine mounts artifacts at power-on: restart the node",
        )
    return path


def read_checked(artifact: Artifact, *, store: Path, max_bytes: int) -> bytes:
    """Give a small file's bytes, which are the bytes that were hashed.

    Raises:
        Rejected: they are not what the list says, or more than `max_bytes`.
        Unavailable: the file is not there.
    """
    path = store / "sha256" / artifact.sha256
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Unavailable(f"artifact {artifact.name} ({path}): {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if len(data) > max_bytes or (found, len(data)) != (artifact.sha256, artifact.size_bytes):
        raise Rejected(
            (f"artifact {artifact.name}: found SHA-256 {found}, expected {artifact.sha256}",)
        )
    return data


def _judge(artifact: Artifact, store: Path) -> str:
    path = store / "sha256" / artifact.sha256
    try:
        with path.open("rb") as file:
            digest, size = copy_digest(file, None, max_bytes=artifact.size_bytes)
    except OSError as error:
        raise Unavailable(f"artifact {artifact.name} ({path}): {error.strerror}") from error
    if digest.hex() == artifact.sha256 and size == artifact.size_bytes:
        return ""
    shown = f"{size} bytes" if size <= artifact.size_bytes else f"more than {size - 1} bytes"
    return (
        f"artifact {artifact.name}: found SHA-256 {digest.hex()} ({shown}), "
        f"expected {artifact.sha256} ({artifact.size_bytes} bytes)"
    )
