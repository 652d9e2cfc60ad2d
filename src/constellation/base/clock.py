"""The only place that reads the time: UTC seconds for windows and logs, a counter for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["monotonic_s", "now"]


def now() -> datetime:
    """Give the present time, with its zone (UTC)."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Give seconds of a clock that never jumps; only differences mean something."""
    return time.monotonic()
