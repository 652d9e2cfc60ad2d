"""Groups of hosts of one's own have a fixed size: the operator lists them, and no more.

Nobody but their owner can give a host power or another image, so that a roll-out of an image stops
here and says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a field's type
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Conflict
from constellation.providers.baremetal.metadata import FOLDERS, read_hosts

if TYPE_CHECKING:
    from constellation.providers.protocols import Instance, NodeGroups

__all__ = ["BaremetalNodeGroups"]

_HINT: Final = "boot the host with the new image yourself; its groups keep their size"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaremetalNodeGroups:
    """`providers.protocols.NodeGroups` of hosts that the owner has written down."""

    folders: tuple[Path, ...] = FOLDERS

    async def create(self, group: str) -> Instance:
        """Refuse. Raises Conflict."""
        raise Conflict(f"{group[:40]}: no host can be made", hint=_HINT)

    async def delete(self, instance_id: str) -> None:
        """Refuse, unless there is no such host. Raises Conflict."""
        if any(i.instance_id == instance_id for i in await self.list_instances()):
            raise Conflict(f"{instance_id[:80]}: a host is its owner's to remove", hint=_HINT)

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all hosts of this cluster. Raises Unavailable, FormatError."""
        found = await asyncio.to_thread(read_hosts, *self.folders)
        return tuple(host.instance(state="unknown") for host in found.hosts)


if TYPE_CHECKING:
    _: type[NodeGroups] = BaremetalNodeGroups
