"""Starting other programs: bounded in time and output, no shell, no inherited standard input.

Secrets go to a program through its standard input or a file descriptor, never argv or environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

__all__ = ["Failed", "Finished", "run", "stream"]

_KEPT_OUTPUT_BYTES = 4 * 1024 * 1024
_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended: exit code (negative: signal) and what it printed, 4 MiB at most each."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Failed(Unavailable):
    """A program ended with another exit code than 0 or did not end in time."""

    def __init__(self, message: str, *, finished: Finished | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.finished = finished


async def run(
    *argv: str | Path,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    pass_fds: tuple[int, ...] = (),
) -> Finished:
    """Run a program to its end. `env` replaces the whole environment; None hands on ours.

    Raises:
        Failed: it could not be started, took longer than `timeout_s`, or (with `check`) ended with
            another exit code than 0; the message has the end of its standard error.
    """
    name = os.path.basename(str(argv[0]))  # noqa: PTH119 - argv[0] may be a bare name
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"{name} did not start: {error}", finished=None) from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin or None)
    except (TimeoutError, asyncio.CancelledError) as error:
        # its own session: what it started goes with it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise Failed(f"{name} did not end within {timeout_s:g} s", finished=None) from None
    assert process.returncode is not None  # noqa: S101 - communicate() waited for it
    finished = Finished(
        returncode=process.returncode,
        stdout=stdout[-_KEPT_OUTPUT_BYTES:],
        stderr=stderr[-_KEPT_OUTPUT_BYTES:],
    )
    if check and finished.returncode != 0:
        tail = finished.stderr.decode(errors="replace").strip()[-1500:]
        raise Failed(f"{name} ended with {finished.returncode}: {tail}", finished=finished)
    return finished


async def stream(
    *argv: str | Path,
    timeout_s: float,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ending_s: float = 0.0,
) -> None:
    """Run a program that takes long; hand each line of both its outputs over as it comes.

    A line longer than 64 KiB comes in parts. If the caller is cancelled or the time is over, the
    program is asked to end (SIGINT) and has `ending_s` seconds for it; then it is killed.

    Raises:
        Failed: as `run`; the message has the last 20 lines.
    """
    name = os.path.basename(str(argv[0]))  # noqa: PTH119 - argv[0] may be a bare name
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"{name} did not start: {error}", finished=None) from error
    assert process.stdout is not None  # noqa: S101 - asked for above
    kept: deque[str] = deque(maxlen=20)
    try:
        async with asyncio.timeout(timeout_s):
            async for line in _lines(process.stdout):
                kept.append(line)
                on_line(line)
            returncode = await process.wait()
    except BaseException as error:
        if ending_s:
            await _ask_to_end(process, on_line, within_s=ending_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise Failed(f"{name} did not end within {timeout_s:g} s", finished=None) from None
        raise
    if returncode != 0:
        tail = "\n".join(kept)
        finished = Finished(returncode=returncode, stdout=tail.encode(), stderr=b"")
        raise Failed(f"{name} ended with {returncode}: {tail[-1500:]}", finished=finished)


async def _ask_to_end(
    process: asyncio.subprocess.Process, on_line: Callable[[str], None], *, within_s: float
) -> None:
    """Interrupt the program alone, not what it started: it ends those itself, in order."""
    assert process.stdout is not None  # noqa: S101 - `stream` asked for it
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            async for line in _lines(process.stdout):
                on_line(line)
            await process.wait()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while chunk := await reader.read(_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
