"""How a key of the API server is wrapped: AES-256-GCM under this cluster's key `etcd/<n>`. Pure.

    wrapped = nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes); associated data = label ‖ key id

The API server asks about once an hour, so random nonces stay far below the 2³² that one key allows.
Source: NIST SP 800-38D, sections 5.2.1 and 8.3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.derive import derive_key

if TYPE_CHECKING:
    from constellation.crypto.derive import MasterSecret

__all__ = ["CURRENT_KEY_ID", "NONCE_BYTES", "unwrap", "wrap"]

CURRENT_KEY_ID = "etcd/1"
NONCE_BYTES = 12
_TAG_BYTES = 16
_LABEL = b"constellation-kms-v2\0"
_KEY_ID = re.compile(r"etcd/[0-9]{1,9}")
_MAX_PLAINTEXT_BYTES = 512
"""A seed or key of the API server has 32 bytes; its limit for what we answer is 1 KiB."""


def wrap(plaintext: bytes, *, master: MasterSecret, key_id: str, nonce: bytes) -> bytes:
    """Encrypt under the key `key_id` (`etcd/<n>`); `nonce`: 12 random bytes, never twice.

    Raises:
        FormatError: the plaintext is larger than any key, or the id is none of etcd's.
    """
    if len(plaintext) > _MAX_PLAINTEXT_BYTES:
        raise FormatError(f"plaintext of {len(plaintext)} bytes, at most {_MAX_PLAINTEXT_BYTES}")
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"nonce of {len(nonce)} bytes, want {NONCE_BYTES}")
    return nonce + _aead(master, key_id).encrypt(nonce, plaintext, _LABEL + key_id.encode())


def unwrap(wrapped: bytes, *, master: MasterSecret, key_id: str) -> bytes:
    """Decrypt what `wrap` gave for the same key id.

    Raises:
        FormatError: too short, or the id is none of etcd's.
        Untrusted: it was not made by this cluster's key of that id.
    """
    if not NONCE_BYTES + _TAG_BYTES <= len(wrapped) <= NONCE_BYTES + _TAG_BYTES + 512:
        raise FormatError(f"wrapped key of {len(wrapped)} bytes")
    nonce, rest = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    try:
        return _aead(master, key_id).decrypt(nonce, rest, _LABEL + key_id.encode())
    except InvalidTag:
        raise Untrusted(f"wrapped key: not made by this cluster's key {key_id}") from None


def _aead(master: MasterSecret, key_id: str) -> AESGCM:
    # the API server names the key; it must not reach another kind of key this way
    if not _KEY_ID.fullmatch(key_id):
        raise FormatError(f"key id {key_id[:40]!r}: expected etcd/N")
    return AESGCM(derive_key(master, key_id, size_bytes=32).reveal())
