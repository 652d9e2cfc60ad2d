"""The only place that reads the time: UTC seconds for windows and logs, a counter for durations.

A node's programs bound what the machine's clock says (`bound`); on the workstation it is believed.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from constellation.base.time_bounds import TimeBounds

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = [
    "ahead",
    "boot_s",
    "bound",
    "monotonic_s",
    "now",
    "now_for_windows",
    "seconds_for_windows",
]

_bounds = TimeBounds(floor_s=0, said=None)


def bound(bounds: TimeBounds) -> None:
    """Believe the machine's clock within these bounds from now on, in this process."""
    global _bounds  # noqa: PLW0603 - a process has one clock
    _bounds = bounds


def now() -> datetime:
    """Give the present time, with its zone (UTC), never below what has passed for sure."""
    return _bounds.floored(datetime.now(UTC))


def now_for_windows() -> datetime:
    """Give the time to judge windows by: the present time, unless the clock has jumped ahead."""
    return _bounds.windowed(now(), boot_s=boot_s())


def seconds_for_windows() -> int:
    """Give `now_for_windows` in whole seconds since 1970, UTC: as records and messages have it."""
    return int(now_for_windows().timestamp())


def ahead() -> timedelta | None:
    """Say how far the machine's clock has jumped ahead, if it has."""
    return _bounds.ahead(now(), boot_s=boot_s())


def boot_s() -> float:
    """Give the seconds since the machine's start, those that it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def monotonic_s() -> float:
    """Give seconds of a clock that never jumps; only differences mean something."""
    return time.monotonic()
