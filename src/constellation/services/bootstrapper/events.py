"""What a run tells whoever watches: kept from its beginning, so that nobody comes too late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.rpc.stubs import init_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Events"]


class Events:
    """Events of one run in order; the last is Finished or Failed."""

    def __init__(self) -> None:
        self._events: list[init_pb2.InitEvent] = []
        self._more = asyncio.Condition()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return self._ended

    async def add(self, event: init_pb2.InitEvent) -> None:
        """Add an event."""
        async with self._more:
            self._events.append(event)
            self._ended = event.WhichOneof("kind") in ("finished", "failed")
            self._more.notify_all()

    async def step(self, name: str, *, done: bool) -> None:
        """Say that a step starts or is done."""
        step = init_pb2.Step(name=name)
        event = init_pb2.InitEvent(done=step) if done else init_pb2.InitEvent(started=step)
        await self.add(event)

    async def watch(self) -> AsyncIterator[init_pb2.InitEvent]:
        """Give all events, those of the past first, until the last one."""
        index = 0
        while True:
            async with self._more:
                while index >= len(self._events) and not self._ended:
                    await self._more.wait()
                if index >= len(self._events):
                    return
                event = self._events[index]
            index += 1
            yield event
