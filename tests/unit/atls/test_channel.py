"""What an open connection writes: encrypted, in few packets, and nothing once it is broken."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from constellation.atls.channel import Connection
from constellation.atls.frames import Hello
from constellation.atls.handshake import Expected, Handshake
from constellation.atls.tls import Closed, Tls, context
from constellation.base.errors import FormatError

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Wire(asyncio.Transport):
    """A TCP transport that keeps what is written, packet by packet."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.packets.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


def ends() -> tuple[Connection, Wire, Tls]:
    """Give a client's connection whose TLS is up, its wire, and the server's end of TLS."""
    hello = Hello(purpose="join-client", nonce=bytes(32), attests=False)
    expected = Expected(purposes=frozenset({"join-server"}), unattested=False)
    connection = Connection(
        context(server=False, now=NOW),
        Handshake("client", hello=hello, expected=expected),
        server=False,
        purpose="join-client",
        attester=None,
        appraisers={},
    )
    wire, server = Wire(), Tls(context(server=True, now=NOW), server=True)
    connection.connection_made(wire)
    client = connection._tls
    while not (client.handshake() & server.handshake()):
        server.feed(client.outgoing())
        client.feed(server.outgoing())
    server.feed(client.outgoing())
    server.handshake()
    return connection, wire, server


async def test_writes_of_one_moment_are_one_packet_in_their_order() -> None:
    connection, wire, server = ends()
    for part in (b"headers ", b"", b"data ", b"trailers"):
        connection.write(part)
    assert wire.packets == []
    assert connection.get_write_buffer_size() == len(b"headers data trailers")
    await asyncio.sleep(0)
    (packet,) = wire.packets
    server.feed(packet)
    assert server.read() == b"headers data trailers"
    assert connection.get_write_buffer_size() == 0


async def test_what_was_written_before_the_end_is_sent_and_nothing_after_it() -> None:
    connection, wire, server = ends()
    connection.write(b"last words")
    connection.close()
    connection.write(b"too late")
    await asyncio.sleep(0)
    server.feed(b"".join(wire.packets))
    assert server.read() == b"last words"
    with pytest.raises(Closed):
        server.read()
    assert wire.closed


async def test_writing_to_a_broken_connection_is_no_bug() -> None:
    connection, wire, _ = ends()
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: bugs.append(what))
    connection._tls.shutdown()
    connection.write(b"never")
    await asyncio.sleep(0)
    connection.close()
    assert wire.closed
    assert bugs == []


def test_a_peers_key_is_known_once_the_handshake_is_complete() -> None:
    fresh = Tls(context(server=False, now=NOW), server=False)
    with pytest.raises(FormatError, match="not complete"):
        _ = fresh.peer_spki_digest
