"""Refused attempts on their way into the join log: bounded, and never in a peer's way."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import ConstellationError
from constellation.kube.join_log import Entry, Kind
from constellation.kube.refusals import RefusalBudget, admit_refusal, close_minute
from constellation.services.joinservice import entries

if TYPE_CHECKING:
    from constellation.services.joinservice.ledger import Ledger

__all__ = ["Refusals"]

_log = logging.getLogger(__name__)
_MAX_WAITING = 100


class Refusals:
    """Takes refusals at once and writes them when `run` gets to it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._budget = RefusalBudget(since_s=clock.monotonic_s(), recorded={}, uncounted=0)
        self._waiting: asyncio.Queue[Entry] = asyncio.Queue(_MAX_WAITING)

    def record(
        self, error: ConstellationError, *, address: str, instance_id: str, role: str
    ) -> None:
        """Log a refusal and queue its record, as far as the minute's budget goes."""
        entry = entries.refused(
            error,
            address=address,
            instance_id=instance_id,
            role=role,
            now=clock.seconds_for_windows(),
        )
        self._close_minute()
        recorded, self._budget = admit_refusal(self._budget, address)
        if not recorded:
            return
        _log.warning(
            "a node was refused",
            extra={
                "address": entry.address,
                "instance": entry.instance_id,
                "role": entry.role,
                "reasons": "; ".join(entry.reasons),
            },
        )
        self._put(entry)

    async def run(self) -> None:
        """Write what is queued, for ever."""
        while True:
            try:
                async with asyncio.timeout(10):
                    entry = await self._waiting.get()
            except TimeoutError:
                self._close_minute()
                continue
            await self._write(entry)

    async def _write(self, entry: Entry) -> None:
        try:
            await self._ledger.write_later(lambda _: entry, now=entry.time)
        except ConstellationError as error:
            _log.warning("a refusal was not recorded", extra={"reason": str(error)})

    def _close_minute(self) -> None:
        count, self._budget = close_minute(self._budget, now_s=clock.monotonic_s())
        if count:
            now = clock.seconds_for_windows()
            self._put(Entry(kind=Kind.REFUSED_MORE, time=now, count=count))

    def _put(self, entry: Entry) -> None:
        try:
            self._waiting.put_nowait(entry)
        except asyncio.QueueFull:
            _log.warning("too many refusals wait for the join log, one was dropped")
