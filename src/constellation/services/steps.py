"""Which steps of init or join are done, on disk: an interrupted run goes on where it stopped.

A step is recorded after it returned, so it must be repeatable: it may have happened before a crash
and not be in the record. Steps that hold only until the next boot are never recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import Conflict
from constellation.base.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["Step", "StepBook", "kind_of", "run_steps"]

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: `name` for people and for the record, `volatile` if it is done again each boot."""

    name: str
    do: Callable[[], Awaitable[None]]
    volatile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    kind: str
    done: tuple[str, ...]


class StepBook:
    """`steps.json`: what kind of run it is ("init" or "join"), and which steps are done."""

    def __init__(self, path: Path, *, kind: str) -> None:
        self._path, self._kind = path, kind

    def done(self) -> tuple[str, ...]:
        """List the steps that are done; none if there is no record yet.

        Raises:
            Conflict: the record is of the other kind of run.
        """
        recorded = _read(self._path)
        if recorded is None:
            return ()
        if recorded.kind != self._kind:
            raise Conflict(f"this node began to {recorded.kind}, it cannot {self._kind} now")
        return recorded.done

    def record(self, name: str) -> None:
        """Record a step; a record made twice is one. Nothing is kept before the disk is open."""
        if not self._path.parent.is_dir():
            return
        done = self.done()
        if name not in done:
            record = _Recorded(kind=self._kind, done=(*done, name))
            write_atomic(self._path, decode.dump(record), mode=0o600)


def kind_of(path: Path) -> str:
    """Say what kind of run the record at `path` is of; empty where there is none."""
    recorded = _read(path)
    return recorded.kind if recorded is not None else ""


async def run_steps(
    steps: tuple[Step, ...], *, book: StepBook, notify: Callable[[str, bool], Awaitable[None]]
) -> None:
    """Do in order what is not done yet. The first error ends it.

    `notify` is told each step's name: False when it starts, True when it is done.
    """
    done = book.done()
    for step in steps:
        if step.name in done and not step.volatile:
            continue
        await notify(step.name, False)
        await step.do()
        if not step.volatile:
            book.record(step.name)
        await notify(step.name, True)


def _read(path: Path) -> _Recorded | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return decode.load(_Recorded, data, what=str(path), max_bytes=_MAX_BYTES)
