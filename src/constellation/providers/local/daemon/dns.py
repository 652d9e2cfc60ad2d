"""The cloud's resolver: what the names of its machines stand for, on 169.254.169.254:53.

Authoritative for `constellation.internal`, where `api` is the load balancer and each instance has
its name, and for the instances' bare names. It forwards nothing: other names are REFUSED, so that
no query of a pod leaves the machine. UDP and TCP (RFC 1035, 4.2; RFC 7766); every query, connection
and wait is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError
from constellation.providers.local.daemon import kernel
from constellation.providers.local.daemon.dns_message import (
    MAX_QUERY_BYTES,
    TYPE_A,
    TYPE_ANY,
    Code,
    Query,
    pack_answer,
    pack_refusal,
    parse_query,
)
from constellation.providers.local.daemon.network import BALANCER, METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from constellation.providers.local.daemon.records import CloudRecord

__all__ = ["ZONE", "Resolver", "answer", "names", "serve", "serve_on"]

ZONE = "constellation.internal"
_PORT = 53
_CLASS_IN = 1
_TRANSFERS = frozenset({251, 252})  # IXFR, AXFR
_QUERY_OPCODE = 0
_MAX_CONNECTIONS = 64
_MAX_QUERIES = 100  # of one connection
_IDLE_S = 5.0


def names(cloud: CloudRecord) -> dict[str, IPv4Address]:
    """Give every name that is served now, in lower case, with its address."""
    served = {f"api.{ZONE}": IPv4Address(BALANCER)}
    for node in cloud.nodes:
        address = IPv4Address(node.address)
        served[node.instance_id] = served[f"{node.instance_id}.{ZONE}"] = address
    return served


def answer(data: bytes, served: Mapping[str, IPv4Address]) -> bytes:
    """Answer one message; empty where none is due."""
    try:
        query = parse_query(data)
    except FormatError:
        return pack_refusal(data)
    return _answer(query, served)


def _answer(query: Query, served: Mapping[str, IPv4Address]) -> bytes:
    if query.opcode != _QUERY_OPCODE:
        return pack_answer(query, Code.NOT_IMPLEMENTED)
    if query.edns_version not in (None, 0):
        return pack_answer(query, Code.BAD_VERSION)
    ours = query.name == ZONE or query.name.endswith(f".{ZONE}")
    zone = ZONE if ours else query.name if query.name in served else ""
    if not zone or query.class_ != _CLASS_IN or query.type in _TRANSFERS:
        return pack_answer(query, Code.REFUSED)
    address = served.get(query.name)
    if address is None and query.name != ZONE:
        return pack_answer(query, Code.NO_NAME, zone=zone)
    if address is None or query.type not in (TYPE_A, TYPE_ANY):
        return pack_answer(query, Code.NO_ERROR, zone=zone)
    return pack_answer(query, Code.NO_ERROR, (address,), zone=zone)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self._reply = reply
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # what asyncio gives
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and (said := self._reply(data)):
            self._transport.sendto(said, addr)

    def error_received(self, exc: Exception) -> None:
        del exc  # who asked has gone


class Resolver:
    """A serving resolver; `close` ends it."""

    def __init__(self, transport: asyncio.DatagramTransport, server: asyncio.Server) -> None:
        self._transport, self._server = transport, server

    async def close(self) -> None:
        """Stop listening."""
        self._transport.close()
        self._server.close()


async def serve(
    cloud: Callable[[], CloudRecord], netns: Path, *, host: str = METADATA, port: int = _PORT
) -> Resolver:
    """Listen inside the cloud's network. Raises OSError."""

    def listen() -> tuple[socket.socket, socket.socket]:
        stream = socket.create_server((host, port), backlog=_MAX_CONNECTIONS)
        try:
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.bind(stream.getsockname())
        except OSError:
            stream.close()
            raise
        stream.setblocking(False)
        datagrams.setblocking(False)
        return stream, datagrams

    stream, datagrams = await kernel.inside(listen, net=netns)
    return await serve_on(stream, datagrams, lambda data: answer(data, names(cloud())))


async def serve_on(
    stream: socket.socket, datagrams: socket.socket, reply: Callable[[bytes], bytes]
) -> Resolver:
    """Serve on sockets that are bound already."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(reply), sock=datagrams)
    room = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not room.locked():
                async with room:
                    await _converse(reader, writer, reply)
        finally:
            writer.close()

    return Resolver(transport, await asyncio.start_server(handle, sock=stream, limit=4096))


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Callable[[bytes], bytes]
) -> None:
    """Answer a connection's queries, each after its length in two bytes."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        for _ in range(_MAX_QUERIES):
            async with asyncio.timeout(_IDLE_S):
                size = int.from_bytes(await reader.readexactly(2))
                if size > MAX_QUERY_BYTES:
                    return
                said = reply(await reader.readexactly(size))
                if not said:
                    return
                writer.write(len(said).to_bytes(2) + said)
                await writer.drain()
