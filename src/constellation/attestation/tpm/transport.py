"""How a command goes to a TPM and its answer comes back: over a socket, or a device node.

swtpm's data socket is a stream: the answer's header tells its length. On a device node one write
is one command, and one read the whole answer; reading blocks, so it runs in a thread.
Source: TCG TPM 2.0 Library, Part 1, section 18.1; Linux, drivers/char/tpm/tpm-dev-common.c.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HEADER_BYTES", "MAX_RESPONSE_BYTES", "Transport", "open_transport"]

HEADER_BYTES = 10
"""Tag, size and code, of a command and of an answer."""
MAX_RESPONSE_BYTES = 4096

_PAUSE_S = 0.02
_LISTENS_WITHIN_S = 2.0


class Transport(Protocol):
    """One open connection; exchanges are not interleaved."""

    async def exchange(self, command: bytes) -> bytes:
        """Send a whole command; give the whole answer."""
        ...

    async def close(self) -> None:
        """Let the next client have the TPM."""
        ...


async def open_transport(path: Path, *, timeout_s: float) -> Transport:
    """Open the socket or device node at `path`.

    Raises:
        Unavailable: nothing there answers.
    """
    try:
        mode = path.stat().st_mode  # noqa: ASYNC240 - one call that does not block
        if stat.S_ISCHR(mode):
            return _Node(os.open(path, os.O_RDWR | os.O_CLOEXEC), timeout_s)
        async with asyncio.timeout(timeout_s):
            return _Stream(*await _connected(path))
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"TPM {path} does not answer: {error}") from error


async def _connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    end = monotonic_s() + _LISTENS_WITHIN_S
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except ConnectionRefusedError:
            # a starting swtpm binds its socket a moment before it listens
            if monotonic_s() > end:
                raise
        await asyncio.sleep(_PAUSE_S)


@dataclass(frozen=True, slots=True)
class _Stream:
    """A unix stream socket; the response header gives the length."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def exchange(self, command: bytes) -> bytes:
        self.writer.write(command)
        await self.writer.drain()
        header = await self.reader.readexactly(HEADER_BYTES)
        size = int.from_bytes(header[2:6], "big")
        if not HEADER_BYTES <= size <= MAX_RESPONSE_BYTES:
            raise FormatError(f"TPM response: {size} bytes, at most {MAX_RESPONSE_BYTES}")
        return header + await self.reader.readexactly(size - HEADER_BYTES)

    async def close(self) -> None:
        self.writer.close()


@dataclass(frozen=True, slots=True)
class _Node:
    """A device node: one write is one command, one read its whole response."""

    handle: int
    timeout_s: float

    async def exchange(self, command: bytes) -> bytes:
        return await asyncio.to_thread(self._blocking, command)

    def _blocking(self, command: bytes) -> bytes:
        os.write(self.handle, command)
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        if not poll.poll(self.timeout_s * 1000):
            raise TimeoutError
        return os.read(self.handle, MAX_RESPONSE_BYTES)

    async def close(self) -> None:
        os.close(self.handle)
