"""A host of one's own as its node programs see it: `providers.protocols.Metadata`, from files.

The node image finds the owner's medium and mounts it read-only where a machine's gifts lie
(docs/architecture/seams.md, `/run/constellation/host`). Pods do not see that folder: for them the
bootstrapper keeps a copy of the list.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError, Unavailable
from constellation.providers.baremetal.hosts import HOSTS_FILE, USER_DATA_FILE, parse_hosts

if TYPE_CHECKING:
    from constellation.providers.baremetal.hosts import Hosts
    from constellation.providers.protocols import Instance, Metadata

__all__ = ["FOLDERS", "BaremetalMetadata", "read_hosts"]

FOLDERS: Final = (Path("/run/constellation/host"), Path("/var/lib/constellation/keys/provider"))
"""Where the owner's medium is mounted, and where pods of control planes see a copy of the list."""
_MAX_BYTES = 256 * 1024
_MAX_USER_DATA = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BaremetalMetadata:
    """This host and its cluster, as the owner wrote them down: in the first folder that has it."""

    folders: tuple[Path, ...] = FOLDERS

    async def self_(self) -> Instance:
        """Say who this host is. Raises Unavailable, FormatError."""
        return (await asyncio.to_thread(read_hosts, *self.folders)).own().instance(state="running")

    async def peers(self) -> tuple[Instance, ...]:
        """List the hosts of this cluster; nobody says whether they run."""
        found = await asyncio.to_thread(read_hosts, *self.folders)
        return tuple(host.instance(state="unknown") for host in found.hosts)

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most. Raises Unavailable, FormatError."""
        data = await asyncio.to_thread(_read, self.folders[0] / USER_DATA_FILE)
        if len(data) > _MAX_USER_DATA:
            raise FormatError(f"user data: {len(data)} bytes, at most {_MAX_USER_DATA} are read")
        return data


def read_hosts(*folders: Path) -> Hosts:
    """Read who the hosts are, in the first folder that says it. Raises Unavailable, FormatError."""
    places = [folder / HOSTS_FILE for folder in folders]
    return parse_hosts(_read(next((p for p in places if p.exists()), places[0])))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


if TYPE_CHECKING:
    _: type[Metadata] = BaremetalMetadata
