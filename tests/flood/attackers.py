"""Bad connections of every kind, each from an address of its own: what a flood is made of.

Addresses lie in 127.0.0.0/8, so nothing leaves this machine. Whatever the server does to such a
connection is no error here; each ends with a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import struct
import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography.hazmat.primitives.serialization import Encoding
from h2.config import H2Configuration
from h2.connection import H2Connection

from constellation.base import clock
from constellation.crypto.signing import dump_private_key, generate_key
from constellation.crypto.x509 import self_signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ATTESTED", "GRPC", "HTTP", "LOCAL", "Attack", "address_of"]

Attack: TypeAlias = "Callable[[str, str], Awaitable[None]]"
"""One bad connection to `where` (host:port, or a path) from an address."""

_ADDRESSES = 12_000
"""Three times as many as a server remembers, so that each comes back as a stranger."""
_PATIENCE_S = 5.0
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))
_CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/constellation.verify.v1.VerificationService/GetEvidence"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc+proto"),
]


def address_of(number: int) -> str:
    """Give the address of the flood's connection `number`; honest clients come from 127.0.0.1."""
    left, last = divmod(number % _ADDRESSES, 250)
    return f"127.{100 + left // 250}.{left % 250 + 1}.{last + 1}"


def _socket(where: str, address: str) -> tuple[socket.socket, Any]:
    host, _, port = where.rpartition(":")
    if not host:
        return socket.socket(socket.AF_UNIX), where
    made = socket.socket(socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    made.bind((address, 0))
    return made, (host, int(port))


async def _raw(where: str, address: str, *, data: bytes, hold_s: float) -> None:
    """Connect, send, read for `hold_s` seconds at most, and break off."""
    loop = asyncio.get_running_loop()
    made, target = _socket(where, address)
    with made, contextlib.suppress(OSError, TimeoutError):
        made.setblocking(False)
        async with asyncio.timeout(_PATIENCE_S):
            await loop.sock_connect(made, target)
            if data:
                await loop.sock_sendall(made, data)
        if hold_s:
            async with asyncio.timeout(hold_s):
                while await loop.sock_recv(made, 65536):
                    pass


@functools.cache
def _stranger() -> ssl.SSLContext:
    """Make a TLS client with a certificate that nobody knows."""
    key = generate_key()
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(["constellation-atls/1", "h2"])
    certificate = self_signed(
        key, common_name="x", now=clock.now(), lifetime=timedelta(days=1)
    ).public_bytes(Encoding.PEM)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + dump_private_key(key).reveal())
        file.flush()
        made.load_cert_chain(file.name)
    return made


async def _tls(where: str, address: str, *, data: bytes, hold_s: float) -> None:
    """Complete TLS as a stranger, then send what is no frame, or nothing."""
    made, target = _socket(where, address)
    made.setblocking(False)
    writer = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.get_running_loop().sock_connect(made, target)
            reader, writer = await asyncio.open_connection(
                sock=made, ssl=_stranger(), server_hostname="x"
            )
            writer.write(data)
            await writer.drain()
        async with asyncio.timeout(hold_s):
            while await reader.read(65536):
                pass
    except (OSError, TimeoutError):  # TLS' errors too
        pass
    finally:
        if writer is not None:
            writer.transport.abort()
        made.close()


def _begun_call(claimed_bytes: int) -> bytes:
    peer = H2Connection(H2Configuration(validate_outbound_headers=False))
    peer.initiate_connection()
    peer.send_headers(1, _CALL)
    peer.send_data(1, b"\0" + struct.pack(">I", claimed_bytes))
    return peer.data_to_send()


def _pings() -> bytes:
    peer = H2Connection(H2Configuration(validate_outbound_headers=False))
    peer.initiate_connection()
    for _ in range(100):
        peer.ping(b"12345678")
    return peer.data_to_send()


def _sends(data: bytes, *, hold_s: float = 0.0) -> Attack:
    return functools.partial(_raw, data=data, hold_s=hold_s)


def _speaks_tls(data: bytes, *, hold_s: float) -> Attack:
    return functools.partial(_tls, data=data, hold_s=hold_s)


_JUNK = os.urandom(512)
_HALF_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(40)
_HUGE_FRAME = b"\xff\xff\xff\xff" + _JUNK

_ANYWHERE = (
    _sends(b""),
    _sends(_JUNK, hold_s=0.05),
    _sends(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", hold_s=0.05),
    _sends(b"", hold_s=0.2),
)
ATTESTED = (
    *_ANYWHERE,
    _sends(_HALF_HELLO, hold_s=0.1),
    *_ANYWHERE,
    _sends(_HALF_HELLO),
    _speaks_tls(_HUGE_FRAME, hold_s=0.05),
    *_ANYWHERE,
    _speaks_tls(b"", hold_s=0.1),
)
"""Where TLS comes first; two of fifteen complete it, which is what costs the server most."""
GRPC = (
    *_ANYWHERE,
    _sends(_begun_call(2**32 - 1), hold_s=0.05),
    _sends(_begun_call(32), hold_s=0.1),
    _sends(_pings(), hold_s=0.05),
    _sends(_begun_call(32) + _JUNK, hold_s=0.05),
)
LOCAL = GRPC
"""On a unix socket, by a user who may open it."""
HTTP = (
    *_ANYWHERE,
    _sends(b"GET /" + b"x" * 20_000, hold_s=0.05),
    _sends(b"GET / HTTP/1.1\r\n", hold_s=0.1),
    _sends(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", hold_s=0.05),
)
