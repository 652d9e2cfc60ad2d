"""Which key belongs to an id: HKDF-SHA256 of the master secret, one grammar for every id.

`HKDF(key, salt, info = "key-" + id)`. The clusterID is one step further down, so that it says
nothing about any other key. Sources: RFC 5869; design, section 9. Nothing here does I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from constellation.base.errors import FormatError
from constellation.base.secret import Secret

__all__ = [
    "CLUSTER_ID_BYTES",
    "MASTER_KEY_BYTES",
    "MASTER_SALT_BYTES",
    "MasterSecret",
    "canonical_key_id",
    "cluster_id",
    "derive_key",
]

MASTER_KEY_BYTES = 32
MASTER_SALT_BYTES = 32
CLUSTER_ID_BYTES = 32
_LONGEST_KEY_BYTES = 255 * 32  # RFC 5869, section 2.3: 255 blocks of SHA-256

_HEX = "[0-9a-f]"
_GRAMMAR = re.compile(
    "measurementSecret|ssh-ca|provider-access"
    f"|state-disk/({_HEX}{{32}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})"
    "|volume/[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
    "|etcd/(?:0|[1-9][0-9]{0,8})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSecret:
    """One generation of a cluster's master secret: key and salt, 32 bytes each."""

    key: Secret
    salt: Secret
    generation: int = 1

    def __post_init__(self) -> None:
        """Refuse other sizes: a short key would derive keys that look like any other."""
        if len(self.key) != MASTER_KEY_BYTES:
            raise FormatError(f"master key: {len(self.key)} bytes, want {MASTER_KEY_BYTES}")
        if len(self.salt) != MASTER_SALT_BYTES:
            raise FormatError(f"master salt: {len(self.salt)} bytes, want {MASTER_SALT_BYTES}")
        if self.generation < 1:
            raise FormatError(f"master secret: generation {self.generation}, want at least 1")


def canonical_key_id(key_id: str) -> str:
    """Give the one spelling of a key id; a disk's uuid loses its dashes.

    Ids: `measurementSecret`, `ssh-ca`, `provider-access`, `state-disk/<uuid>` (32 lower-case hex
    digits, or the same with dashes), `volume/<id>`, `etcd/<n>`.

    Raises:
        FormatError: the id is none of these.
    """
    if _GRAMMAR.fullmatch(key_id) is None:
        raise FormatError(
            f"key id {key_id[:80]!r}: expected measurementSecret, ssh-ca, provider-access, "
            "state-disk/UUID, volume/ID or etcd/N"
        )
    kind, slash, rest = key_id.partition("/")
    return kind + slash + (rest.replace("-", "") if kind == "state-disk" else rest)


def derive_key(master: MasterSecret, key_id: str, *, size_bytes: int) -> Secret:
    """Derive the key of `key_id`, `size_bytes` long (1 to 8160).

    Raises:
        FormatError: the id is not in the grammar, or the size is out of range.
    """
    if not 1 <= size_bytes <= _LONGEST_KEY_BYTES:
        raise FormatError(f"key of {size_bytes} bytes: expected 1 to {_LONGEST_KEY_BYTES}")
    return _hkdf(master.key, master.salt, "key-" + canonical_key_id(key_id), size_bytes)


def cluster_id(master: MasterSecret) -> bytes:
    """Derive the clusterID (32 bytes, public) from generation 1 of the master secret.

    Raises:
        ValueError: another generation; rotation must not change who the cluster is.
    """
    if master.generation != 1:
        raise ValueError(f"clusterID comes from generation 1, not {master.generation}")
    measurement_secret = derive_key(master, "measurementSecret", size_bytes=32)
    return _hkdf(measurement_secret, master.salt, "key-clusterID", CLUSTER_ID_BYTES).reveal()


def _hkdf(key: Secret, salt: Secret, info: str, size_bytes: int) -> Secret:
    kdf = HKDF(algorithm=hashes.SHA256(), length=size_bytes, salt=salt.reveal(), info=info.encode())
    return Secret(kdf.derive(key.reveal()))
