"""What evidence commits to: one channel and purpose (`channel_binding`), or `verify` calls.

`SHA-512("constellation-atls-v1", purpose, variant, exporter, SHA-256(SPKI), peer's nonce)`, each
part preceded by its length (4 bytes, big-endian). "SPKI" is the attesting side's own key of this
channel, "peer's nonce" the one chosen by the side that will appraise. Sources: design, section 8;
RFC 8446, section 7.5 (exporter). Both ends call these functions; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from constellation.attestation.model import Binding
from constellation.base.binary import Writer

if TYPE_CHECKING:
    from constellation.attestation.model import Variant

__all__ = [
    "BINDING_EXPORTER_LABEL",
    "EXPORTER_BYTES",
    "NONCE_BYTES",
    "SPKI_DIGEST_BYTES",
    "channel_binding",
    "verify_binding",
]

BINDING_EXPORTER_LABEL = "EXPORTER-Constellation-aTLS-Binding"
"""Label of the TLS exporter in bindings, no context. Signatures use other labels."""

EXPORTER_BYTES = 32
NONCE_BYTES = 32
SPKI_DIGEST_BYTES = 32

_CHANNEL_LABEL = b"constellation-atls-v1"
_VERIFY_LABEL = b"constellation-verify-v1"
_PURPOSE = re.compile(r"[a-z]+(-[a-z]+)*")
_LENGTH_BYTES = 4


def channel_binding(
    *, purpose: str, variant: Variant, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
) -> Binding:
    """Give the 64 bytes that evidence for one aTLS channel commits to.

    Args:
        purpose: of the attesting side: `init-server`, `join-client`, …
        variant: the attesting side's.
        exporter: 32 bytes, label `BINDING_EXPORTER_LABEL`, without context.
        spki_digest: SHA-256 of the attesting side's SubjectPublicKeyInfo (DER).
        peer_nonce: 32 bytes that the appraising side chose for this channel.

    Raises:
        ValueError: a part has another size; there is no default for any of them.
    """
    if not _PURPOSE.fullmatch(purpose):
        raise ValueError(f"purpose {purpose!r}: expected lower-case words joined by dashes")
    _size("exporter", exporter, EXPORTER_BYTES)
    _size("spki_digest", spki_digest, SPKI_DIGEST_BYTES)
    _size("peer_nonce", peer_nonce, NONCE_BYTES)
    parts = (purpose.encode(), str(variant).encode(), exporter, spki_digest, peer_nonce)
    return _hash(_CHANNEL_LABEL, *parts)


def verify_binding(*, nonces_root: bytes, cluster_ca_digest: bytes) -> Binding:
    """Give the 64 bytes that evidence for `verify` calls commits to.

    Args:
        nonces_root: 32 bytes, of the tree with the callers' nonces (`atls.nonce_batch`).
        cluster_ca_digest: SHA-256 of the cluster CA certificate (DER).

    Raises:
        ValueError: a part has another size.
    """
    _size("nonces_root", nonces_root, hashlib.sha256().digest_size)
    _size("cluster_ca_digest", cluster_ca_digest, hashlib.sha256().digest_size)
    return _hash(_VERIFY_LABEL, nonces_root, cluster_ca_digest)


def _size(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise ValueError(f"{name}: {len(value)} bytes, want {size}")


def _hash(*parts: bytes) -> Binding:
    out = Writer(order="big")
    for part in parts:
        out.sized(part, _LENGTH_BYTES)
    return Binding(hashlib.sha512(out.done()).digest())
