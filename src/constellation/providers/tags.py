"""The tags (labels, metadata) by which machines of a cluster are known, the same on every cloud.

They are claims: whoever has the cloud's account can set them. They say where to look, and never
what a machine may do.
"""

from __future__ import annotations

import re
from typing import Final

from constellation.base.errors import FormatError

__all__ = ["GROUP", "NETWORK", "ROLE", "UID", "checked_group", "checked_uid", "resource_part"]

UID: Final = "constellation-uid"
ROLE: Final = "constellation-role"
GROUP: Final = "constellation-node-group"
NETWORK: Final = "constellation-network"
"""On Azure: GROUP/NETWORK/SUBNET of the nodes, for the cloud's own components."""

_UID = re.compile(r"[a-z0-9][a-z0-9-]{2,18}[a-z0-9]")
_GROUP = re.compile(r"[a-z0-9][a-z0-9_]{0,29}")


def checked_uid(text: str, *, where: str) -> str:
    """Give a cluster's uid back if it is one. Raises FormatError."""
    if not _UID.fullmatch(text):
        raise FormatError(f"{where}: {text[:40]!r} is no uid of a cluster")
    return text


def checked_group(text: str, *, where: str) -> str:
    """Give a node group's name back if it is one. Raises FormatError."""
    if not _GROUP.fullmatch(text):
        raise FormatError(f"{where}: {text[:40]!r} names no node group")
    return text


def resource_part(group: str) -> str:
    """Give a group's name as it stands in names of resources, which have no underscores."""
    return group.replace("_", "-")
