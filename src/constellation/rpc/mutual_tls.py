"""Mutual TLS between services inside a cluster: TLS 1.3, the services' CA, nothing else.

Both ends show a certificate of that CA. A client dials a node's own address and demands that very
address in the certificate (RFC 9525, section 6.5: IP-ID); a server learns the caller's URIs and
lets its handlers decide. After the handshake the peer holds the key of such a certificate. A server
uses a renewed certificate from the next connection on; a caller's must be good at each call.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.atls.grpc_bounds import (
    MAX_MESSAGE_BYTES,
    MAX_UNREAD_BYTES,
    BoundedChannel,
    OpenServer,
)
from constellation.atls.limits import USUAL, Gate, Limits
from constellation.base import clock
from constellation.base.errors import Unavailable, Untrusted

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from grpclib._typing import IServable
    from grpclib.client import Channel
    from grpclib.server import Stream

    from constellation.atls.limits import Place

__all__ = [
    "LIFE_S",
    "ServiceTls",
    "TlsServer",
    "channel",
    "peer_public_key",
    "peer_uris",
    "serve",
]

LIFE_S = 120.0
"""Longest life of a connection: our callers make a new one for each call, of 30 s at most."""
_BACKLOG = 256
_PAUSE_S = 0.1
_SHUTDOWN_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTls:
    """Files of this node's service identity, PEM: certificate, its private key, services' CA."""

    certificate: Path
    private_key: Path
    ca: Path


def channel(host: str, port: int, *, tls: ServiceTls) -> Channel:
    """Make a gRPC channel to the service at a node's own address (IPv4).

    Raises:
        Unavailable: a file is not there yet or cannot be used.
    """
    return BoundedChannel(host, port, ssl=_context(tls, ssl.PROTOCOL_TLS_CLIENT))


async def serve(
    handlers: Collection[IServable],
    *,
    host: str,
    port: int,
    tls: ServiceTls,
    limits: Limits = USUAL,
    life_s: float = LIFE_S,
) -> TlsServer:
    """Listen for callers with a certificate of the services' CA; see `TlsServer`.

    A connection is ended `life_s` after its handshake, whatever its caller does with it.

    Raises:
        Unavailable: the address is taken or not this machine's, or a file of `tls` is not there
            yet or cannot be used.
    """
    identity = _ServerIdentity(tls)
    try:
        listener = socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return TlsServer(handlers, listener=listener, identity=identity, limits=limits, life_s=life_s)


class _ServerIdentity:
    """The context that a server listens with, of the certificate that lies on the disk now."""

    def __init__(self, tls: ServiceTls) -> None:
        self._tls = tls
        self._loaded = self._useless = _version(tls.certificate)
        self._context = _server_context(tls)

    def context(self) -> ssl.SSLContext:
        """Give the context; where the file was replaced, load it first.

        A file that cannot be used is said aloud once, and the loaded certificate goes on.
        """
        found = _version(self._tls.certificate)
        if found != self._loaded:
            try:
                self._context = _server_context(self._tls)
            except Unavailable as error:
                if found != self._useless:  # tried again at each connection, said once
                    _log.warning("certificate was not reloaded", extra={"reason": str(error)})
                self._useless = found
            else:
                self._loaded = found
                _log.info("a new certificate is used")
        return self._context


class TlsServer:
    """A gRPC server behind mutual TLS; made by `serve`.

    A connection counts before its TLS handshake begins, by `limits` as on aTLS ports, and one that
    is known counts on: a certificate of the CA does not make its bearer unlimited. Where no place
    is left, the address that has most gives its oldest up for a newcomer.
    """

    def __init__(
        self,
        handlers: Collection[IServable],
        *,
        listener: socket.socket,
        identity: _ServerIdentity,
        limits: Limits,
        life_s: float,
    ) -> None:
        self._grpc = OpenServer(
            handlers,
            limits=limits,
            life_s=life_s,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_unread_bytes=MAX_UNREAD_BYTES,
        )
        self._listener, self._identity = listener, identity
        self._limits, self._gate = limits, Gate(limits)
        self._handshakes: dict[socket.socket, asyncio.Task[None]] = {}
        self._unbegun: set[socket.socket] = set()
        self._transports = weakref.WeakSet[asyncio.Transport]()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._accepting.cancel()
        for task in self._handshakes.values():
            task.cancel()
        for transport in self._transports:
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until `close` has taken effect."""
        tasks = (self._accepting, *self._handshakes.values())
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, (address, *_) = await loop.sock_accept(self._listener)
            except OSError as error:  # the peer has left again, or no descriptor is free
                _log.warning("a connection was not accepted", extra={"reason": str(error)})
                await asyncio.sleep(_PAUSE_S)
                continue
            self._begin(sock, str(address))
            await asyncio.sleep(0)  # where many wait, `sock_accept` does not let others run

    def _begin(self, sock: socket.socket, address: str) -> None:
        place = self._gate.enter(
            address, now_s=clock.monotonic_s(), give_up=lambda: self._evict(sock)
        )
        if place is None:
            _log.warning("too many connections, one was closed", extra={"address": address})
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._handshake(sock, place))
        self._handshakes[sock] = task
        self._unbegun.add(sock)
        task.add_done_callback(lambda _: self._ended(sock, place))

    def _ended(self, sock: socket.socket, place: Place) -> None:
        self._handshakes.pop(sock)
        if sock in self._unbegun:  # cancelled before it ran: nobody else has the socket
            self._unbegun.discard(sock)
            sock.close()
            self._gate.left(place)

    def _evict(self, sock: socket.socket) -> None:
        _log.warning("a handshake gave its place up")
        self._handshakes[sock].cancel()

    async def _handshake(self, sock: socket.socket, place: Place) -> None:
        self._unbegun.discard(sock)
        protocol = self._grpc._protocol_factory()  # noqa: SLF001 - grpclib's one hook
        known = False
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=self._identity.context(),
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError as error:  # TLS' errors too
            _log.info("a handshake failed", extra={"address": place.address, "reason": str(error)})
            # its frames hold it and TLS' memory, until the collector comes
            error.__traceback__ = None
        else:
            known = True
            self._transports.add(transport)
        finally:
            if not known:
                # grpclib keeps the handler of each protocol that it made until it is closed
                protocol.handler.close()
            self._gate.left(place)


def peer_uris(stream: Stream[Any, Any]) -> tuple[str, ...]:
    """Give the URIs in the caller's certificate.

    Raises:
        Untrusted: the call did not come over mutual TLS, or the certificate has expired: on a
            connection that has lasted, or by a clock that was set back (TLS asks the machine's).
    """
    certificate = stream.peer.cert()
    if not certificate:
        raise Untrusted("service call: the caller showed no certificate")
    end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    if end <= clock.now().timestamp():
        raise Untrusted(f"service call: the caller's certificate expired at {end}")
    names: Any = certificate.get("subjectAltName", ())
    return tuple(value for kind, value in names if kind == "URI")


def peer_public_key(stream: Stream[Any, Any]) -> bytes:
    """Give the public key of the caller's certificate (DER SubjectPublicKeyInfo).

    Raises:
        Untrusted: the call did not come over mutual TLS.
    """
    tls = stream.peer._transport.get_extra_info("ssl_object")  # noqa: SLF001 - grpclib has no other way
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if not der:
        raise Untrusted("service call: the caller showed no certificate")
    return (
        x509.load_der_x509_certificate(der)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def _version(path: Path) -> tuple[int, int]:
    """Tell one content of a file that is replaced as a whole from another: inode, time."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns


def _server_context(tls: ServiceTls) -> ssl.SSLContext:
    context = _context(tls, ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED  # callers must show a certificate
    return context


def _context(tls: ServiceTls, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(tls.certificate, tls.private_key)
        context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"service certificate in {tls.certificate.parent}: {error}") from error
    return context
