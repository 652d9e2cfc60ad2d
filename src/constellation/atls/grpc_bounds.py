"""How much of a gRPC peer is kept: one message, calls at a time, answers that it does not read.

grpclib reads a message of whatever length its five-byte header claims, up to 4 GiB, also from a
peer that has proven nothing yet. Servers and channels made here refuse by the header, before the
message is kept. Sources: gRPC, doc/PROTOCOL-HTTP2.md ("Length-Prefixed-Message"); RFC 9113,
section 10.5.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, H2Protocol, Stream
from grpclib.server import Server

from constellation.atls.limits import Gate
from constellation.base import clock

if TYPE_CHECKING:
    from collections.abc import Collection

    from grpclib._typing import IServable
    from grpclib.utils import Wrapper

    from constellation.atls.limits import Limits

__all__ = ["MAX_CALLS", "MAX_MESSAGE_BYTES", "BoundedChannel", "BoundedServer", "OpenServer"]

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""Of one message: a control plane's ticket with a membership of 4 MiB is the largest."""
MAX_CALLS: Final = 16
"""Calls of one connection to a server at the same time."""
_MAX_UNREAD_BYTES = 32 * 1024 * 1024
"""Of answers that a peer does not read; more than any honest peer leaves."""


class BoundedServer(Server):
    """A gRPC server that reads no message above `MAX_MESSAGE_BYTES`."""

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return _BoundedProtocol(made, max_message_bytes=MAX_MESSAGE_BYTES, max_calls=MAX_CALLS)


class OpenServer(Server):
    """A gRPC server for anybody: bounded messages, and connections bounded in number and time.

    `limits.handshake_s` is the longest life of a connection; `handshakes_per_address`,
    `connections` and `per_minute` are about connections.
    """

    def __init__(
        self, handlers: Collection[IServable], *, limits: Limits, max_message_bytes: int
    ) -> None:
        super().__init__(handlers)
        self._limits, self._gate = limits, Gate(limits)
        self._max_message_bytes = max_message_bytes

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return _OpenProtocol(
            made, max_message_bytes=self._max_message_bytes, limits=self._limits, gate=self._gate
        )


class BoundedChannel(Channel):
    """A gRPC channel that reads no message above `MAX_MESSAGE_BYTES`."""

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return _BoundedProtocol(made, max_message_bytes=MAX_MESSAGE_BYTES, max_calls=None)


class _BoundedProtocol(H2Protocol):
    def __init__(self, made: H2Protocol, *, max_message_bytes: int, max_calls: int | None) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._max_message_bytes, self._max_calls = max_message_bytes, max_calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # grpclib makes its own Connection; only the streams that come from it differ
        self.connection.__class__ = _BoundedConnection
        assert isinstance(self.connection, _BoundedConnection)  # noqa: S101 - the line above
        self.connection.max_message_bytes = self._max_message_bytes
        self.connection.max_calls = self._max_calls

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if isinstance(self.connection, _BoundedConnection):
            self.connection.check_unread()


class _OpenProtocol(_BoundedProtocol):
    def __init__(
        self, made: H2Protocol, *, max_message_bytes: int, limits: Limits, gate: Gate
    ) -> None:
        super().__init__(made, max_message_bytes=max_message_bytes, max_calls=MAX_CALLS)
        self._limits, self._gate = limits, gate
        self._address: str | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream socket's
        name = transport.get_extra_info("peername")
        address = str(name[0]) if name else ""
        if not self._gate.enter(address, now_s=clock.monotonic_s()):
            transport.abort()
            return
        self._address = address
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(self._limits.handshake_s, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._address is not None:
            self._gate.settled(self._address)
            self._gate.left()
        super().connection_lost(exc)


class _BoundedConnection(Connection):
    max_message_bytes: int
    max_calls: int | None

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> Stream:
        calls = self._connection.open_inbound_streams
        if self.max_calls is not None and calls > self.max_calls:
            self._transport.abort()
        return _BoundedStream(
            self,
            self._connection,
            self._transport,
            stream_id=stream_id,
            wrapper=wrapper,
        )

    def check_unread(self) -> None:
        """End the connection of a peer that makes us answer and does not read."""
        if self.is_closing():
            return
        if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self._transport.abort()


class _BoundedStream(Stream):
    async def recv_data(self, size: int) -> bytes:
        connection = self.connection
        assert isinstance(connection, _BoundedConnection)  # noqa: S101 - made there
        if size > connection.max_message_bytes:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"message of {size} bytes, at most {connection.max_message_bytes} are read",
            )
        return await super().recv_data(size)
