"""TLS 1.3 without sockets: self-signed P-256 leaf on both ends, exporter, no way to resume.

Certificates prove nothing here, so every one is let through; what a peer is stands in its evidence,
which covers this channel's exporter and the peer's key. Sources: RFC 8446, sections 4.4.2 and 7.5;
RFC 7301 (ALPN). After `handshake` returned True, the peer holds the key of `peer_spki_digest`.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import InvalidVersion
from OpenSSL import SSL

from constellation.atls.binding import EXPORTER_BYTES
from constellation.base.errors import FormatError, Unavailable
from constellation.crypto.signing import generate_key, spki
from constellation.crypto.x509 import self_signed

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

__all__ = ["ALPN", "Closed", "Tls", "context"]

ALPN = b"constellation-atls/1"
_CHUNK_BYTES = 64 * 1024
_UNREADABLE = (ValueError, TypeError, InvalidVersion, UnsupportedAlgorithm)
"""What `cryptography` raises for a certificate or key that it does not know."""
_LEAF_LIFETIME = timedelta(days=365)
"""Nobody checks it (clocks of nodes are claims); it only has to parse."""


class Closed(Unavailable):
    """The peer ended the TLS connection."""


def context(*, server: bool, now: datetime) -> SSL.Context:
    """Make what TLS needs for one side, with a new key and its self-signed certificate."""
    key = generate_key()
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_min_proto_version(SSL.TLS1_3_VERSION)
    made.set_max_proto_version(SSL.TLS1_3_VERSION)
    made.set_options(SSL.OP_NO_TICKET)
    made.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # the tickets that remain find nothing
    made.use_privatekey(key)
    made.use_certificate(
        self_signed(key, common_name="constellation-atls", now=now, lifetime=_LEAF_LIFETIME)
    )
    made.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _any_certificate)
    if server:
        made.set_alpn_select_callback(
            lambda _, offered: ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
        )
    else:
        made.set_alpn_protos([ALPN])
    return made


class Tls:
    """One end of one TLS connection: bytes from the network in, bytes for the network out."""

    def __init__(self, tls_context: SSL.Context, *, server: bool) -> None:
        self._connection = SSL.Connection(tls_context, None)
        self._peer_spki_digest: bytes | None = None
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()

    def feed(self, data: bytes) -> None:
        """Take bytes that the network delivered."""
        view = memoryview(data)
        while view:
            view = view[self._connection.bio_write(view) :]

    def outgoing(self) -> bytes:
        """Give the bytes that the network has to deliver."""
        chunks = []
        while True:
            try:
                chunks.append(self._connection.bio_read(_CHUNK_BYTES))
            except SSL.WantReadError:
                return b"".join(chunks)

    def handshake(self) -> bool:
        """Go on with the TLS handshake; True when it is complete, False if it waits for bytes.

        Raises:
            FormatError: the peer does not speak TLS 1.3 as this protocol needs it.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise FormatError(f"aTLS: TLS handshake failed: {_reason(error)}") from None
        if self._connection.get_alpn_proto_negotiated() != ALPN:
            raise FormatError(f"aTLS: the peer does not speak {ALPN.decode()}")
        try:
            certificate = self._connection.get_peer_certificate(as_cryptography=True)
            self._peer_spki_digest = _digest(certificate)
        except _UNREADABLE as error:  # OpenSSL reads what cryptography does not
            raise FormatError(f"aTLS: the peer's certificate cannot be read: {error}") from None
        return True

    def read(self) -> bytes:
        """Give the plaintext that has arrived, empty if none.

        Raises:
            Closed: the peer ended the connection.
            FormatError: a record is damaged.
        """
        try:
            return self._connection.recv(_CHUNK_BYTES)
        except SSL.WantReadError:
            return b""
        except SSL.ZeroReturnError:
            raise Closed("aTLS: the peer ended the connection") from None
        except SSL.Error as error:
            raise FormatError(f"aTLS: TLS: {_reason(error)}") from None

    def write(self, data: bytes) -> None:
        """Encrypt plaintext; `outgoing` then has the records.

        Raises:
            Closed: the connection is broken or was shut down.
        """
        try:
            self._connection.sendall(data)
        except SSL.Error as error:
            raise Closed(f"aTLS: TLS: {_reason(error)}") from None

    def shutdown(self) -> None:
        """Tell the peer that nothing more comes (close_notify)."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return  # the connection is broken already

    def exporter(self, label: str) -> bytes:
        """Give 32 bytes that only the two ends of this connection know (RFC 8446, section 7.5)."""
        return self._connection.export_keying_material(label.encode(), EXPORTER_BYTES)

    @property
    def own_spki_digest(self) -> bytes:
        """SHA-256 of this side's public key (32 bytes)."""
        return _digest(self._connection.get_certificate(as_cryptography=True))

    @property
    def peer_spki_digest(self) -> bytes:
        """SHA-256 of the peer's public key (32 bytes); known once the handshake is complete."""
        if self._peer_spki_digest is None:
            raise FormatError("aTLS: the TLS handshake is not complete")
        return self._peer_spki_digest


def _any_certificate(*_: object) -> bool:
    # not an omission: evidence over exporter and key is the proof, see atls.binding
    return True


def _digest(certificate: x509.Certificate | None) -> bytes:
    if certificate is None:
        raise FormatError("aTLS: the peer sent no certificate")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError("aTLS: the peer's key is not ECDSA P-256")
    return hashlib.sha256(spki(key)).digest()


def _reason(error: SSL.Error) -> str:
    if error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0]) or "unexpected end"
    return type(error).__name__
