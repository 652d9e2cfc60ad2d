"""Mutual TLS between services inside a cluster: TLS 1.3, the services' CA, nothing else.

Both ends show a certificate of that CA. A client dials a node's own address and demands that very
address in the certificate (RFC 9525, section 6.5: IP-ID); a server learns the caller's URIs and
lets its handlers decide. After the handshake the peer holds the key of such a certificate.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpclib.client import Channel

from constellation.base.errors import Unavailable, Untrusted

if TYPE_CHECKING:
    from pathlib import Path

    from grpclib.server import Stream

__all__ = ["ServiceTls", "channel", "peer_uris", "server_context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTls:
    """Files of this node's service identity, PEM: certificate, its private key, services' CA."""

    certificate: Path
    private_key: Path
    ca: Path


def server_context(tls: ServiceTls) -> ssl.SSLContext:
    """Make the context that a gRPC server listens with; callers must show a certificate.

    Raises:
        Unavailable: a file is not there yet or cannot be used.
    """
    context = _context(tls, ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def channel(host: str, port: int, *, tls: ServiceTls) -> Channel:
    """Make a gRPC channel to the service at a node's own address (IPv4).

    Raises:
        Unavailable: a file is not there yet or cannot be used.
    """
    return Channel(host, port, ssl=_context(tls, ssl.PROTOCOL_TLS_CLIENT))


def peer_uris(stream: Stream[Any, Any]) -> tuple[str, ...]:
    """Give the URIs in the caller's certificate.

    Raises:
        Untrusted: the call did not come over mutual TLS.
    """
    certificate = stream.peer.cert()
    if not certificate:
        raise Untrusted("service call: the caller showed no certificate")
    names: Any = certificate.get("subjectAltName", ())
    return tuple(value for kind, value in names if kind == "URI")


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
