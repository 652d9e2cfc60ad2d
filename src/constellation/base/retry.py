"""Trying again what was `Unavailable`, with growing pauses, until a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from constellation.base.clock import monotonic_s
from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["until_available"]

T = TypeVar("T")


async def until_available(
    attempt: Callable[[], Awaitable[T]],
    *,
    deadline_s: float,
    first_pause_s: float = 0.1,
    longest_pause_s: float = 2.0,
) -> T:
    """Call `attempt` until it returns or raises anything but `Unavailable`.

    Raises:
        Unavailable: the last one, once `deadline_s` seconds are over.
    """
    end, pause = monotonic_s() + deadline_s, first_pause_s
    while True:
        try:
            return await attempt()
        except Unavailable:
            if monotonic_s() + pause > end:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest_pause_s)
