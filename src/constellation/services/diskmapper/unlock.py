"""What to do with the state disk at power-on, and what a key for it looks like; pure.

new: only said, the bootstrapper goes on. known: ask the JoinServices for a rejoin ticket, again
and again; a control plane also listens for its owner, since it may be the last that is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.disk.superblock import DiskState, State
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from constellation.base.secret import Secret

__all__ = ["Plan", "Unlock", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """The disk's key (64 bytes) and the time of whoever gave it (seconds since 1970, UTC)."""

    key: Secret
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the disk mapper does: ask JoinServices, listen for the owner; neither: a new disk."""

    rejoin: bool
    listen: bool


def plan(disk: DiskState, *, role: Role) -> Plan:
    """Decide. `role` is the provider's claim: it chooses where to look for a key, no more."""
    if disk.state is State.NEW:
        return Plan(rejoin=False, listen=False)
    return Plan(rejoin=True, listen=role is Role.CONTROL_PLANE)
