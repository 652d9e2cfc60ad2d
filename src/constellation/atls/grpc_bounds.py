"""How much of a gRPC peer is kept: one message, calls at a time, answers that it does not read.

grpclib reads a message of whatever length its five-byte header claims, up to 4 GiB, and answers
every frame, also from a peer that has proven nothing yet. Servers and channels made here refuse by
the header, before the message is kept, and end a connection that begins or resets calls, or sends
frames without content, faster than any honest peer. Sources: gRPC, doc/PROTOCOL-HTTP2.md
("Length-Prefixed-Message"); RFC 9113, section 10.5 (denial of service); CVE-2023-44487.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, H2Protocol, Stream
from grpclib.server import Server
from h2.events import DataReceived, RequestReceived

from constellation.atls.limits import Gate, Limits, Place, Rate
from constellation.base import clock

if TYPE_CHECKING:
    from collections.abc import Collection
    from ssl import SSLContext

    from grpclib._typing import IServable
    from grpclib.utils import Wrapper
    from h2.events import Event

__all__ = [
    "MAX_CALLS",
    "MAX_MESSAGE_BYTES",
    "MAX_UNREAD_BYTES",
    "MAX_UNREAD_OPEN_BYTES",
    "BoundedChannel",
    "BoundedServer",
    "LocalServer",
    "OpenServer",
]

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""Of one message: a control plane's ticket with a membership of 4 MiB is the largest."""
MAX_CALLS: Final = 16
"""Calls of one connection to a server at the same time."""
MAX_UNREAD_BYTES: Final = 32 * 1024 * 1024
"""Of answers that a peer does not read; more than any honest peer leaves."""
MAX_UNREAD_OPEN_BYTES: Final = 2 * 1024 * 1024
"""The same where anybody may connect: a few answers with evidence."""
_FRAMES, _FRAMES_PER_S = 2000, 200.0
"""Frames of one connection that carry nothing of a message; a window update for each 16 KiB of
the largest answer is a quarter of that."""
_LOCAL = Limits(
    handshake_s=0, handshakes=128, handshakes_per_address=128, connections=128, per_minute=100_000
)
"""Of a unix socket: its peers have no address, and all belong to users who may use it."""
_BROKEN = (NotImplementedError, LookupError, ValueError)
"""What grpclib and h2 raise for frames that they know no answer to, beside h2's ProtocolError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """Of one connection; `max_calls` None: this side began it and gets no calls.

    `paced`: frames without content are counted.
    """

    max_message_bytes: int
    max_calls: int | None
    max_unread_bytes: int
    paced: bool


def _bounds(*, max_calls: int | None) -> _Bounds:
    return _Bounds(
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_calls=max_calls,
        max_unread_bytes=MAX_UNREAD_BYTES,
        paced=True,
    )


class BoundedServer(Server):
    """A gRPC server with bounded messages; who may connect is decided before it."""

    def __init__(self, handlers: Collection[IServable]) -> None:
        super().__init__(handlers, codec=_StrictCodec())

    def _protocol_factory(self) -> H2Protocol:
        bounds = _bounds(max_calls=MAX_CALLS)
        return _BoundedProtocol(super()._protocol_factory(), bounds)


class OpenServer(Server):
    """A gRPC server whose connections are bounded in number, and in time unless `life_s` is None.

    `limits.handshakes_per_address`, `connections` and `per_minute` are about connections.
    """

    def __init__(
        self,
        handlers: Collection[IServable],
        *,
        limits: Limits,
        life_s: float | None,
        max_message_bytes: int,
        max_unread_bytes: int,
        paced: bool = True,
    ) -> None:
        super().__init__(handlers, codec=_StrictCodec())
        self._life_s = life_s
        self._gate = Gate(limits)
        self._bounds = _Bounds(
            max_message_bytes=max_message_bytes,
            max_calls=MAX_CALLS,
            max_unread_bytes=max_unread_bytes,
            paced=paced,
        )

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return _OpenProtocol(made, self._bounds, life_s=self._life_s, gate=self._gate)


class LocalServer(OpenServer):
    """A gRPC server on a unix socket: messages, calls and connections are bounded, no times."""

    def __init__(self, handlers: Collection[IServable], *, max_message_bytes: int) -> None:
        super().__init__(
            handlers,
            limits=_LOCAL,
            life_s=None,
            max_message_bytes=max_message_bytes,
            max_unread_bytes=MAX_UNREAD_BYTES,
            paced=False,
        )


class BoundedChannel(Channel):
    """A gRPC channel that reads no message above `MAX_MESSAGE_BYTES`."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        super().__init__(host, port, path=path, ssl=ssl, codec=_StrictCodec())

    def _protocol_factory(self) -> H2Protocol:
        bounds = _bounds(max_calls=None)
        return _BoundedProtocol(super()._protocol_factory(), bounds)


class _BoundedProtocol(H2Protocol):
    def __init__(self, made: H2Protocol, bounds: _Bounds) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._bounds = bounds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # grpclib makes its own Connection; only the streams that come from it differ
        self.connection.__class__ = _BoundedConnection
        assert isinstance(self.connection, _BoundedConnection)  # noqa: S101 - the line above
        self.connection.bound(self._bounds)

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.connection, _BoundedConnection)  # noqa: S101 - see connection_made
        if self.connection.is_closing():
            return
        try:
            super().data_received(data)
        except _BROKEN:
            self.connection.abort()
        self.connection.check_unread()


class _OpenProtocol(_BoundedProtocol):
    def __init__(
        self, made: H2Protocol, bounds: _Bounds, *, life_s: float | None, gate: Gate
    ) -> None:
        super().__init__(made, bounds)
        self._life_s, self._gate = life_s, gate
        self._place: Place | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream socket's
        name = transport.get_extra_info("peername")
        address = str(name[0]) if isinstance(name, tuple) else ""
        self._place = self._gate.enter(address, now_s=clock.monotonic_s(), give_up=transport.abort)
        super().connection_made(transport)
        if self._place is None:
            transport.abort()
        elif self._life_s is not None:
            loop = asyncio.get_running_loop()
            self._end = loop.call_later(self._life_s, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._place is not None:
            self._gate.left(self._place)
        super().connection_lost(exc)


class _BoundedConnection(Connection):
    bounds: _Bounds
    _frames: Rate

    def bound(self, bounds: _Bounds) -> None:
        """Set the bounds; before the first byte of the peer."""
        self.bounds = bounds
        self._frames = Rate(burst=_FRAMES, per_second=_FRAMES_PER_S, now_s=clock.monotonic_s())

    def feed(self, data: bytes) -> list[Event]:
        events = super().feed(data)
        idle = sum(not (isinstance(e, DataReceived) and e.data) for e in events)
        within = not self.bounds.paced or self._frames.take(idle, now_s=clock.monotonic_s())
        if not within or any(isinstance(e, RequestReceived) and not _is_call(e) for e in events):
            self.abort()
            return []
        return events

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> Stream:
        calls = self._connection.open_inbound_streams
        if self.bounds.max_calls is not None and calls > self.bounds.max_calls:
            self.abort()
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
        if self._transport.get_write_buffer_size() > self.bounds.max_unread_bytes:
            self.abort()

    def abort(self) -> None:
        """End at once."""
        if not self.is_closing():
            self._transport.abort()


def _is_call(event: RequestReceived) -> bool:
    """Say whether a request can be answered; nobody here sends metadata that has to be decoded.

    gRPC's own (`grpc-…`) is left alone: Go's clients trace with it, and grpclib does not read it.
    """
    names = {str(name) for name, _ in event.headers}
    return names.issuperset((":method", ":path")) and not any(
        n.endswith("-bin") and not n.startswith("grpc-") for n in names
    )


class _StrictCodec(ProtoCodec):
    """Tells whose bytes are no message that they are none; grpclib calls that a bug of ours."""

    def decode(self, data: bytes, message_type: Any) -> Any:
        try:
            return super().decode(data, message_type)
        except DecodeError:
            raise GRPCError(Status.INVALID_ARGUMENT, "not the message of this call") from None


class _BoundedStream(Stream):
    """Reads messages: a header of five bytes, a body, and so on (`recv_data` for each in turn).

    grpclib answers a compressed message, or one that ends early, with errors of its own program.
    """

    _in_body = False

    async def recv_data(self, size: int) -> bytes:
        connection = self.connection
        assert isinstance(connection, _BoundedConnection)  # noqa: S101 - made there
        if size > connection.bounds.max_message_bytes:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"message of {size} bytes, at most {connection.bounds.max_message_bytes} are read",
            )
        try:
            data = await super().recv_data(size)
        except AssertionError:
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"a message ended before its {size} bytes"
            ) from None
        if not self._in_body and data and data[0] != 0:
            raise GRPCError(Status.INVALID_ARGUMENT, "a compressed message: nobody here sends one")
        self._in_body = not self._in_body and bool(data)
        return data
