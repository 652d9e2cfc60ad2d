"""What control planes ask a cloud's API with, sealed: whoever has the master secret reads it.

    sealed = nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes): AES-256-GCM under `provider-access`,
    associated data = label ‖ clusterID

It travels in the cluster policy, which every node keeps and which is no secret. Who made it says
the owner's signature over the policy: every control plane has the key, so the seal alone proves
only that somebody with the master secret sealed it for this cluster. Each replacement has a nonce
of its own, far below the 2³² that one key allows. Pure. Source: NIST SP 800-38D, sections 5.2.1 and
8.3; ADR 99.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from constellation.base.errors import FormatError, Untrusted
from constellation.base.secret import Secret
from constellation.crypto.derive import derive_key

if TYPE_CHECKING:
    from constellation.crypto.derive import MasterSecret

__all__ = ["MAX_SEALED_BYTES", "NONCE_BYTES", "seal_access", "unseal_access"]

MAX_SEALED_BYTES: Final = 64 * 1024
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LABEL: Final = b"constellation-provider-access-v1\0"


def seal_access(access: Secret, *, master: MasterSecret, cluster_id: bytes, nonce: bytes) -> bytes:
    """Seal what the provider's own code wrote; `nonce`: 12 random bytes, never twice.

    Raises:
        FormatError: it is empty, or larger than what a policy carries.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"nonce of {len(nonce)} bytes, want {NONCE_BYTES}")
    if not 0 < len(access) <= MAX_SEALED_BYTES - NONCE_BYTES - _TAG_BYTES:
        raise FormatError(f"provider access of {len(access)} bytes: a policy cannot carry it")
    sealed = _aead(master).encrypt(nonce, access.reveal(), _LABEL + cluster_id)
    return nonce + sealed


def unseal_access(sealed: bytes, *, master: MasterSecret, cluster_id: bytes) -> Secret:
    """Open what `seal_access` gave for this cluster.

    Raises:
        FormatError: too short or too long. Untrusted: not sealed with this cluster's master secret.
    """
    if not NONCE_BYTES + _TAG_BYTES < len(sealed) <= MAX_SEALED_BYTES:
        raise FormatError(f"sealed provider access of {len(sealed)} bytes")
    nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return Secret(_aead(master).decrypt(nonce, rest, _LABEL + cluster_id))
    except InvalidTag:
        raise Untrusted("provider access: not sealed with this cluster's master secret") from None


def _aead(master: MasterSecret) -> AESGCM:
    return AESGCM(derive_key(master, "provider-access", size_bytes=32).reveal())
