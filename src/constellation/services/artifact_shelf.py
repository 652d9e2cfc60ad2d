"""Where a node's artifacts are: the local cloud's daemon gives them, every other node fetches them.

A fetched file lies on the state disk, which has integrity; it was hashed while it was written, and
is hashed again at each later boot before it is used. A squashfs is mounted by the node itself, and
only one whose bytes were checked in this boot. Source: design, section 10, "Disks".
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from typing import TYPE_CHECKING, Protocol

from constellation.base.errors import FormatError
from constellation.base.file_server import USUAL_PACE, Door
from constellation.base.proc import run
from constellation.releases.delivery import USUAL_PATIENCE, deliver
from constellation.services import artifacts
from constellation.trust.artifact_sources import NEVER_ASKED, parse_sources

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from constellation.trust.artifact_list import Artifact
    from constellation.trust.artifact_sources import Source

__all__ = ["FetchedShelf", "GivenShelf", "Shelf", "door_of", "shelf_of"]

_LOCAL = "local"
_MOUNT_S = 30.0


class Shelf(Protocol):
    """This node's artifacts; files lie below `store`/sha256."""

    @property
    def store(self) -> Path:
        """Give the folder."""
        ...

    async def have(self, wanted: Iterable[Artifact]) -> None:
        """Have these files here, each checked against its entry.

        Raises:
            Rejected, FalseArtifact: a file is another one. Unavailable: it is not to be had.
        """
        ...

    async def mounted(self, artifact: Artifact) -> Path:
        """Give the folder where a squashfs that `have` has checked is mounted.

        Raises:
            Unavailable: it is not, or cannot be.
        """
        ...


class GivenShelf:
    """What the machine gives, from `host`: the local cloud's alone."""

    def __init__(self, host: Path) -> None:
        self._host = host

    @property
    def store(self) -> Path:
        """See `Shelf`."""
        return self._host / "artifacts"

    async def have(self, wanted: Iterable[Artifact]) -> None:
        """Hash the files where they lie."""
        await artifacts.check_all(wanted, store=self.store)

    async def mounted(self, artifact: Artifact) -> Path:
        """Find the folder; a node of the local cloud may use no loop device."""
        return artifacts.mounted(artifact, host=self._host)


class FetchedShelf:
    """What this node fetches: to `store`, from `sources` through `door`; mounted below `mounts`."""

    def __init__(
        self, store: Path, *, mounts: Path, sources: tuple[Source, ...], door: Door
    ) -> None:
        self._store, self._mounts = store, mounts
        self._sources, self._door = sources, door
        self._checked: set[str] = set()

    @property
    def store(self) -> Path:
        """See `Shelf`."""
        return self._store

    async def have(self, wanted: Iterable[Artifact]) -> None:
        """Fetch what is missing or damaged; what is here is hashed."""
        wanted = tuple(wanted)
        await deliver(
            wanted,
            folder=self._store / "sha256",
            sources=self._sources,
            door=self._door,
            pace=USUAL_PACE,
            patience=USUAL_PATIENCE,
        )
        self._checked |= {artifact.sha256 for artifact in wanted}

    async def mounted(self, artifact: Artifact) -> Path:
        """Mount it, unless it is. Raises also ValueError: its bytes were not checked here."""
        if artifact.sha256 not in self._checked:
            raise ValueError(f"artifact {artifact.name} is mounted before it was checked")
        target = self._mounts / artifact.sha256
        if not await asyncio.to_thread(os.path.ismount, target):
            await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
            source = self._store / "sha256" / artifact.sha256
            options = ("-t", "squashfs", "-o", "loop,ro,nodev")
            await run("mount", *options, source, target, timeout_s=_MOUNT_S)
        return target


def door_of(own_address: str, *inner: str) -> Door:
    """Give where this node may fetch from: not from itself, nor from the networks `inner`.

    Raises:
        FormatError: one is no IPv4 network.
    """
    try:
        networks = tuple(ipaddress.IPv4Network(text) for text in (own_address, *inner))
    except ValueError as error:
        raise FormatError(f"network of this cluster: {error}") from None
    return Door(closed=(*NEVER_ASKED, *networks))


def shelf_of(
    provider: str, *, host: Path, disk: Path, mounts: Path, sources: tuple[str, ...], door: Door
) -> Shelf:
    """Give the shelf of a node of this provider.

    Args:
        provider: as the measured command line says.
        host: what the machine gives its guest.
        disk: the state disk's folder for public files.
        mounts: a folder of this boot.
        sources: where to fetch, `trust.artifact_sources`.
        door: which addresses may be asked.

    Raises:
        FormatError: a source is none.
    """
    if provider == _LOCAL:
        return GivenShelf(host)
    return FetchedShelf(disk, mounts=mounts, sources=parse_sources(sources), door=door)
