"""A TLS client that speaks aTLS frames by hand, so that it may break every rule."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from constellation.atls.frames import FrameBuffer
from constellation.atls.tls import Closed, Tls, context
from constellation.base import clock
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from OpenSSL import SSL


class Wire:
    """One TCP connection with TLS and nothing on it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        tls_context: SSL.Context | None = None,
    ) -> None:
        self.reader, self.writer = reader, writer
        self.tls = Tls(tls_context or context(server=False, now=clock.now()), server=False)
        self._frames = FrameBuffer()

    @classmethod
    async def open(
        cls, port: int, *, tls_context: SSL.Context | None = None, check: bool = True
    ) -> Self:
        wire = cls(*await asyncio.open_connection("127.0.0.1", port), tls_context=tls_context)
        try:
            await wire.handshake()
        except FormatError:
            if check:
                wire.close()
                raise
            wire.writer.write(wire.tls.outgoing())
        return wire

    async def handshake(self) -> None:
        while not self.tls.handshake():
            self.writer.write(self.tls.outgoing())
            self.tls.feed(await self._more())
        self.writer.write(self.tls.outgoing())

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.writer.write(self.tls.outgoing())

    async def frame(self) -> bytes:
        """Give the body of the next frame."""
        while (frame := self._frames.next()) is None:
            while not (data := self.tls.read()):
                self.tls.feed(await self._more())
            self._frames.feed(data)
        return frame[1]

    async def ended(self, *, within_s: float = 2.0) -> bool:
        """Whether the peer ends the connection in time."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    await self.frame()
        except TimeoutError:
            return False
        except (EOFError, Closed, FormatError, ConnectionError):
            self.close()
            return True

    async def _more(self) -> bytes:
        data = await self.reader.read(65536)
        if not data:
            self.close()
            raise EOFError
        return data

    def close(self) -> None:
        self.writer.close()
