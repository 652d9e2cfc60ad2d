"""Init or join: whichever comes first has the node, and the other is refused from then on."""

from __future__ import annotations

import asyncio

from constellation.base.errors import Conflict

__all__ = ["NodeLock"]


class NodeLock:
    """Held by one kind of run ("init" or "join"), for ever."""

    def __init__(self, *, held_by: str = "") -> None:
        self._held_by = held_by
        self._taken = asyncio.Event()
        if held_by:
            self._taken.set()

    @property
    def held_by(self) -> str:
        """Who has it; empty if nobody."""
        return self._held_by

    def take(self, kind: str) -> None:
        """Take it; the same kind may take it again.

        Raises:
            Conflict: the other kind has it.
        """
        if self._held_by not in ("", kind):
            raise Conflict(
                f"this node began to {self._held_by}, it cannot {kind} now",
                hint="another node of the cluster may be the first; see `constellation status`",
            )
        self._held_by = kind
        self._taken.set()

    async def taken_by(self, kind: str) -> None:
        """Wait until this kind of run has it; for ever if the other one has."""
        await self._taken.wait()
        if self._held_by != kind:
            await asyncio.Event().wait()
