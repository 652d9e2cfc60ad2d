"""One flood: a server in a process of its own, bad connections by the thousand, honest clients.

The server's memory is read when it has seen enough to have filled every bounded table, and again at
the end, when all bad connections are gone: between the two it must not have grown.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import logs
from tests.flood.attackers import address_of
from tests.flood.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from tests.flood.targets import Target

__all__ = ["Outcome", "findings", "flood"]

_ABREAST = 64
_HONEST_EVERY_S = 0.25
_HONEST_WITHIN_S = 20.0
_SETTLE_S = 1.0
_START_S = 20.0
_GROWTH_MIB = 6.0
"""Garbage that waits for the collector; what TLS keeps for a connection is a tenth of a MiB."""
_FILES = 4
_LOG_BYTES_A_MINUTE = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one flood did: memory in MiB, open files, bytes of log, waits of honest clients."""

    connections: int
    seconds: float
    memory_before_mib: float
    memory_after_mib: float
    files_before: int
    files_after: int
    log_bytes: int
    honest: int
    honest_tries: int
    honest_worst_s: float


def findings(outcome: Outcome) -> tuple[str, ...]:
    """Say what of a flood stayed in the server, nothing if all is well."""
    grown = outcome.memory_after_mib - outcome.memory_before_mib
    opened = outcome.files_after - outcome.files_before
    most_log = (1 + outcome.seconds / 60) * _LOG_BYTES_A_MINUTE
    return (
        *(
            (f"memory grew by {grown:.1f} MiB, at most {_GROWTH_MIB}",)
            if grown > _GROWTH_MIB
            else ()
        ),
        *((f"{opened} more files are open, at most {_FILES}",) if opened > _FILES else ()),
        *(
            (f"{outcome.log_bytes} bytes of log, at most {most_log:.0f}",)
            if outcome.log_bytes > most_log
            else ()
        ),
    )


def flood(name: str, *, warm_up: int, connections: int) -> Outcome:
    """Flood one target with `warm_up` bad connections, then with `connections` more.

    Raises:
        AssertionError: an honest client was not served in time, or the server ended.
    """
    with tempfile.TemporaryDirectory(prefix="flood") as folder:
        target = TARGETS[name](Path(folder))
        with _served(target, Path(folder) / "log") as (pid, where):
            return asyncio.run(
                _Flood(target, pid, where, Path(folder) / "log").run(warm_up, connections)
            )


class _Flood:
    def __init__(self, target: Target, pid: int, where: str, log: Path) -> None:
        self._target, self._pid, self._where, self._log = target, pid, where, log
        self._waits: list[float] = []
        self._tries = 0
        self._next = 0

    async def run(self, warm_up: int, connections: int) -> Outcome:
        honest = asyncio.create_task(self._honest_for_ever())
        await self._attack(warm_up)
        before, files = _memory_mib(self._pid), _open_files(self._pid)
        logged = self._log.stat().st_size
        begin = time.monotonic()
        await self._attack(connections)
        seconds = time.monotonic() - begin
        if honest.done():
            honest.result()
        honest.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await honest
        await asyncio.sleep(_SETTLE_S)
        await self._honest_once()
        return Outcome(
            connections=connections,
            seconds=round(seconds, 1),
            memory_before_mib=before,
            memory_after_mib=_memory_mib(self._pid),
            files_before=files,
            files_after=_open_files(self._pid),
            log_bytes=self._log.stat().st_size - logged,
            honest=len(self._waits),
            honest_tries=self._tries,
            honest_worst_s=round(max(self._waits), 2),
        )

    async def _attack(self, count: int) -> None:
        end = self._next + count
        attacks = self._target.attacks

        async def one_after_another() -> None:
            while self._next < end:
                number = self._next
                self._next += 1
                await attacks[number % len(attacks)](self._where, address_of(number))

        await asyncio.gather(*(one_after_another() for _ in range(_ABREAST)))
        await asyncio.sleep(_SETTLE_S)

    async def _honest_for_ever(self) -> None:
        while True:
            await self._honest_once()
            await asyncio.sleep(_HONEST_EVERY_S)

    async def _honest_once(self) -> None:
        """Try as honest programs do: again, until it works or the time is over."""
        begin, last = time.monotonic(), ""
        while time.monotonic() - begin < _HONEST_WITHIN_S:
            self._tries += 1
            try:
                await self._target.honest(self._where)
            except Exception as error:  # noqa: BLE001 - whatever it is, it was not served
                last = repr(error)
                await asyncio.sleep(0.05)
            else:
                self._waits.append(time.monotonic() - begin)
                return
        raise AssertionError(f"an honest client was not served in {_HONEST_WITHIN_S} s: {last}")


@contextlib.contextmanager
def _served(target: Target, log: Path) -> Iterator[tuple[int, str]]:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=_serve, args=(target, theirs, log), daemon=True)
    child.start()
    try:
        assert child.pid is not None
        assert ours.poll(_START_S), "the server did not start"
        yield child.pid, ours.recv()
        assert child.is_alive(), "the server ended"
    finally:
        child.kill()
        child.join()
        for end in (ours, theirs):
            end.close()


def _serve(target: Target, parent: Connection, log: Path) -> None:
    async def for_ever() -> None:
        parent.send(await target.serve())
        await asyncio.Event().wait()

    # what the parent had is no garbage of the server's, and would make its collector wait longer
    gc.freeze()
    with log.open("w") as stream:
        logs.set_up("flood", stream=stream)
        asyncio.run(for_ever())


def _memory_mib(pid: int) -> float:
    """Give the memory that is resident."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    resident = sum(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))
    return round(resident / 1024, 2)


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - as many as there are, no objects
