"""Between which times a machine's clock is believed; pure.

A clock is the data centre's claim. Below: never less than a time that has passed for sure (the
node image's build, a ticket or a request of the owner, the last time on the disk). Above: a trusted
party said a time in this boot, and the seconds since then were counted; a clock that is further
ahead than `JUMP` is not obeyed where windows are judged. Source: design, section 7, "Time".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["JUMP", "Said", "TimeBounds"]

JUMP = timedelta(minutes=10)
"""A clock that is further ahead than this has jumped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A time that a trusted party said (seconds since 1970, UTC), and when: seconds since boot."""

    seconds: int
    boot_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBounds:
    """`floor_s`: seconds since 1970 that have passed for sure; `said` None: nobody said a time."""

    floor_s: int
    said: Said | None

    def floored(self, wall: datetime) -> datetime:
        """Give the time to work with."""
        said = self.said.seconds if self.said is not None else 0
        return max(wall, datetime.fromtimestamp(max(self.floor_s, said), UTC))

    def ahead(self, wall: datetime, *, boot_s: float) -> timedelta | None:
        """Say how far the clock has jumped ahead of what was said, `boot_s` after boot."""
        if self.said is None:
            return None
        difference = wall - self._expected(self.said, boot_s)
        return difference if difference > JUMP else None

    def windowed(self, wall: datetime, *, boot_s: float) -> datetime:
        """Give the time to judge windows by: a jump ahead is not obeyed."""
        jumped = self.said is not None and self.ahead(wall, boot_s=boot_s) is not None
        return self.floored(self._expected(self.said, boot_s) if jumped and self.said else wall)

    @staticmethod
    def _expected(said: Said, boot_s: float) -> datetime:
        return datetime.fromtimestamp(said.seconds, UTC) + timedelta(seconds=boot_s - said.boot_s)
