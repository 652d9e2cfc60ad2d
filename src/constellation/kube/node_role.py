"""What a node does in its cluster."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["NodeRole"]


class NodeRole(StrEnum):
    """What a node does in its cluster; the words of `providers.protocols.Role`."""

    CONTROL_PLANE = "control-plane"
    WORKER = "worker"
