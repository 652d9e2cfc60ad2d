"""Which operator leads: one Lease, held by renewing it, taken over when it is seen to stand still.

How long a Lease stood still is measured here, on the steady clock, from when this process first
saw it: other nodes' clocks decide nothing. Source: client-go, package leaderelection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["DURATION_S", "Move", "Seen", "move", "see"]

DURATION_S = 15.0
"""Seconds without a change after which a Lease is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A Lease as last read: holder, version, when (steady clock) that version was first seen."""

    holder: str
    version: str
    since_s: float


class Move(Enum):
    """What to do about the Lease."""

    CREATE = auto()
    HOLD = auto()
    WAIT = auto()


def see(before: Seen | None, *, holder: str, version: str, now_s: float) -> Seen:
    """Note a read; the same version as before stands still since it was first seen."""
    if before is not None and before.version == version:
        return before
    return Seen(holder=holder, version=version, since_s=now_s)


def move(seen: Seen | None, *, me: str, now_s: float) -> Move:
    """Decide: no Lease: create; ours, free or still for too long: write it; else wait."""
    if seen is None:
        return Move.CREATE
    still = now_s - seen.since_s
    return Move.HOLD if seen.holder in (me, "") or still >= DURATION_S else Move.WAIT
