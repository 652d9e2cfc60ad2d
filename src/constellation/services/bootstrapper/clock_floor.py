"""A node's clock is never taken below a time that somebody trusted told it; pure.

Floors: the node image's build time, the time in a ticket or init request, the last time on the
disk. The machine's clock itself is not set: it may be shared with others (design, section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["JUMP", "ClockFloor"]

JUMP = timedelta(minutes=10)
"""A difference larger than this is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFloor:
    """The newest time that is known to have passed (seconds since 1970, UTC)."""

    seconds: int

    def raised_to(self, seconds: int) -> ClockFloor:
        """Give the floor that also knows of `seconds`."""
        return ClockFloor(seconds=max(self.seconds, seconds))

    def now(self, clock: datetime) -> datetime:
        """Give the time to work with, from what the machine's clock says."""
        return max(clock, datetime.fromtimestamp(self.seconds, UTC))

    def off_by(self, clock: datetime) -> timedelta | None:
        """Give how far the machine's clock is off if that is worth a report."""
        difference = clock - datetime.fromtimestamp(self.seconds, UTC)
        return difference if abs(difference) > JUMP else None
