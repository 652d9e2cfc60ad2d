"""Floods of the ports inside a cluster and of unix sockets: places, life, messages, frames.

Beside each attack stands its control case: the honest peer is served all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import pytest
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.config import H2Configuration
from h2.connection import H2Connection

from constellation.atls.grpc_bounds import (
    MAX_UNREAD_OPEN_BYTES,
    BoundedChannel,
    LocalServer,
    OpenServer,
)
from constellation.atls.limits import Limits
from constellation.base import clock
from constellation.crypto.signing import dump_private_key
from constellation.crypto.x509 import CertificateAuthority, generate_key, spki
from constellation.rpc import mutual_tls
from constellation.rpc.stubs.key_grpc import KeyServiceBase, KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyReply, GetDataKeyRequest
from tests.scenarios.test_attack_floods import GOOD, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from grpclib.server import Stream

CA = CertificateAuthority.create("services", now=clock.now(), lifetime=timedelta(days=1))
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/constellation.key.v1.KeyService/GetDataKey"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc+proto"),
]


Attack: TypeAlias = "Callable[[H2Connection], bytes]"


class Answers(KeyServiceBase):
    """Gives the same key to everybody."""

    async def GetDataKey(  # noqa: N802 - the name in key.proto
        self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
    ) -> None:
        assert await stream.recv_message() is not None
        await stream.send_message(GetDataKeyReply(key=GOOD))


def limits(*, seconds: float = 5, connections: int = 40) -> Limits:
    return Limits(
        handshake_s=seconds,
        handshakes=6,
        handshakes_per_address=3,
        connections=connections,
        per_minute=9999,
    )


def identity(folder: Path) -> mutual_tls.ServiceTls:
    key = generate_key()
    certificate = CA.issue(
        spki(key.public_key()),
        common_name="cp-0",
        ips=("127.0.0.1",),
        usage="peer",
        now=clock.now(),
        lifetime=timedelta(hours=1),
    )
    (folder / "service.pem").write_bytes(dump_private_key(key).reveal())
    (folder / "service.crt").write_bytes(certificate)
    (folder / "services-ca.crt").write_bytes(CA.certificate_pem)
    return mutual_tls.ServiceTls(
        certificate=folder / "service.crt",
        private_key=folder / "service.pem",
        ca=folder / "services-ca.crt",
    )


@pytest.fixture
def tls(tmp_path: Path) -> mutual_tls.ServiceTls:
    return identity(tmp_path)


@contextlib.asynccontextmanager
async def serving(
    tls: mutual_tls.ServiceTls, bounds: Limits, *, life_s: float = mutual_tls.LIFE_S
) -> AsyncIterator[mutual_tls.TlsServer]:
    listening = await mutual_tls.serve(
        [Answers()],
        host="127.0.0.1",
        port=0,
        tls=tls,
        limits=bounds,
        life_s=life_s,
    )
    try:
        yield listening
    finally:
        listening.close()
        await listening.wait_closed()


async def ask(channel: BoundedChannel, text: str = "x") -> bytes:
    reply = await KeyServiceStub(channel).GetDataKey(GetDataKeyRequest(id=text), timeout=5)
    return reply.key


async def ask_tls(port: int, tls: mutual_tls.ServiceTls) -> bytes:
    with contextlib.closing(mutual_tls.channel("127.0.0.1", port, tls=tls)) as channel:
        return await ask(channel)


class Silent:
    """Connections from addresses of an attacker that send nothing."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def connect(self, port: int, *, count: int, address: str) -> None:
        for _ in range(count):
            made = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
            made.setblocking(False)
            self.sockets.append(made)

    async def alive(self) -> int:
        """Count those that the server has not ended."""
        await asyncio.sleep(0.1)
        return sum(map(_waits, self.sockets))

    def close(self) -> None:
        for made in self.sockets:
            made.close()


def _waits(made: socket.socket) -> bool:
    try:
        while made.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


async def test_a_service_port_bounds_handshakes_of_one_address_and_ends_them(
    tls: mutual_tls.ServiceTls, silent: Silent
) -> None:
    async with serving(tls, limits(seconds=0.8)) as listening:
        silent.connect(listening.port, count=8, address="127.0.0.2")
        assert await silent.alive() == 3
        assert await ask_tls(listening.port, tls) == GOOD
        await asyncio.sleep(0.9)
        assert await silent.alive() == 0


async def test_addresses_that_hold_all_handshakes_of_a_service_port_keep_nobody_out(
    tls: mutual_tls.ServiceTls, silent: Silent
) -> None:
    async with serving(tls, limits()) as listening:
        for number in (2, 3):
            silent.connect(listening.port, count=3, address=f"127.0.0.{number}")
        assert await silent.alive() == 6
        assert await ask_tls(listening.port, tls) == GOOD
        assert await silent.alive() == 5


async def test_the_bearer_of_a_certificate_holds_a_share_of_the_connections(
    tls: mutual_tls.ServiceTls,
) -> None:
    async with serving(tls, limits(connections=12)) as listening:
        channels = [mutual_tls.channel("127.0.0.1", listening.port, tls=tls) for _ in range(4)]
        try:
            for channel in channels[:3]:
                assert await ask(channel) == GOOD
            with pytest.raises((StreamTerminatedError, OSError)):
                await ask(channels[3])
            channels[0].close()
            await asyncio.sleep(0.1)
            assert await ask(channels[3]) == GOOD
        finally:
            for channel in channels:
                channel.close()


async def idle(port: int, tls: mutual_tls.ServiceTls, address: str) -> asyncio.StreamReader:
    """Connect with a good certificate from an address, and say nothing more."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(tls.certificate, tls.private_key)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, local_addr=(address, 0)
    )
    OPEN.append(writer)
    return reader


OPEN: list[asyncio.StreamWriter] = []


async def ended(connections: list[asyncio.StreamReader]) -> int:
    """Count connections that the server has ended."""
    count = 0
    for reader in connections:
        try:
            async with asyncio.timeout(0.05):
                while await reader.read(4096):
                    pass
            count += 1
        except TimeoutError:
            pass
        except OSError:
            count += 1
    return count


async def test_bearers_of_certificates_that_hold_all_connections_keep_nobody_out(
    tls: mutual_tls.ServiceTls,
) -> None:
    async with serving(tls, limits(), life_s=1.5) as listening:
        held = [
            await idle(listening.port, tls, f"127.0.0.{number}")
            for number in (2, 3)
            for _ in range(3)
        ]
        assert await ended(held) == 0
        assert await ask_tls(listening.port, tls) == GOOD, "6 of 6 places were taken"
        assert await ended(held) == 1
        await asyncio.sleep(1.5)
        assert await ended(held) == 6, "nobody holds a connection for as long as it likes"
    while OPEN:
        OPEN.pop().close()


async def test_a_handshake_that_failed_leaves_nothing_in_the_server(
    tls: mutual_tls.ServiceTls,
) -> None:
    """A hundred thousand of them left 48 MiB: the library kept what it had made for each."""
    async with serving(tls, limits(connections=200)) as listening:
        for number in range(60):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listening.port, local_addr=(f"127.0.1.{number + 1}", 0)
            )
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), 5) is not None
            writer.close()
        assert await ask_tls(listening.port, tls) == GOOD
        kept = listening._grpc._handlers  # the library's own
        # it looks at each tenth connection
        assert len(kept) <= 10 + 1


async def test_addresses_that_hold_all_handshakes_of_an_attested_port_keep_nobody_out(
    silent: Silent,
) -> None:
    world = World()
    listening = await world.serve(limits())
    for number in (2, 3):
        silent.connect(listening.port, count=3, address=f"127.0.0.{number}")
    assert await silent.alive() == 6
    async with await world.connect(listening.port) as channel:
        reply = await KeyServiceStub(channel.grpc).GetDataKey(GetDataKeyRequest(id="x"), timeout=5)
        assert reply.key == GOOD
    assert await silent.alive() == 5
    listening.close()
    await listening.wait_closed()


async def test_a_unix_socket_bounds_messages_and_connections(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    local = LocalServer([Answers()], max_message_bytes=64)
    await local.start(path=str(path))
    channels = [BoundedChannel(path=str(path)) for _ in range(129)]
    try:
        for channel in channels[:128]:
            await channel.__connect__()
        with pytest.raises((StreamTerminatedError, OSError)):
            await ask(channels[128])
        assert await ask(channels[0]) == GOOD
        with pytest.raises(GRPCError, match="at most 64"):
            await ask(channels[0], "x" * 100)
    finally:
        for channel in channels:
            channel.close()
        local.close()
        await local.wait_closed()


@contextlib.asynccontextmanager
async def open_port() -> AsyncIterator[int]:
    opened = OpenServer(
        [Answers()],
        limits=limits(),
        life_s=30,
        max_message_bytes=64,
        max_unread_bytes=MAX_UNREAD_OPEN_BYTES,
    )
    await opened.start("127.0.0.1", 0)
    try:
        yield opened._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    finally:
        opened.close()
        await opened.wait_closed()


def pings(peer: H2Connection) -> bytes:
    for _ in range(3000):
        peer.ping(b"12345678")
    return peer.data_to_send()


def resets(peer: H2Connection) -> bytes:
    for number in range(1, 3000, 2):
        peer.send_headers(number, HEADERS)
        peer.reset_stream(number)
    return peer.data_to_send()


def unknown_frames(_peer: H2Connection) -> bytes:
    return b"\0\0\0\x60\0\0\0\0\0"


def no_method(peer: H2Connection) -> bytes:
    peer.send_headers(1, [(":path", "/x"), (":scheme", "http")], end_stream=True)
    return peer.data_to_send()


@pytest.mark.parametrize("attack", [pings, resets])
async def test_a_flood_of_frames_ends_its_connection_and_no_other(attack: Attack) -> None:
    async with open_port() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer = H2Connection(H2Configuration(validate_outbound_headers=False))
        peer.initiate_connection()
        writer.write(peer.data_to_send())
        writer.write(attack(peer))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while await reader.read(65536):
                    pass
        writer.transport.abort()
        with contextlib.closing(BoundedChannel("127.0.0.1", port)) as channel:
            assert await ask(channel) == GOOD


def no_message(peer: H2Connection) -> bytes:
    peer.send_headers(1, HEADERS)
    peer.send_data(1, b"\0\0\0\0\x02\xff\xff", end_stream=True)
    return peer.data_to_send()


@pytest.mark.parametrize("oddity", [unknown_frames, no_method, no_message])
async def test_an_odd_frame_is_no_error_of_ours(
    oddity: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_port() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer = H2Connection(H2Configuration(validate_outbound_headers=False))
        peer.initiate_connection()
        writer.write(peer.data_to_send() + oddity(peer))
        await asyncio.sleep(0.2)
        writer.transport.abort()
        del reader
        with contextlib.closing(BoundedChannel("127.0.0.1", port)) as channel:
            assert await ask(channel) == GOOD
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")]
