"""PCR arithmetic: how a register starts, how it is extended, how a quote digests several.

Source: TCG TPM 2.0 Library, Part 1, section 17 (PCR operations); TCG PC Client Platform TPM
Profile 1.05, section 4.6 (which registers start with ones).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["COUNT", "digest_of", "digest_size", "extend", "initial", "quote_digest", "replay"]

COUNT = 24
"""Registers of a bank on PC platforms."""

_DRTM = range(17, 23)  # -1 until a dynamic launch
_HASHES = {
    Alg.SHA1: hashlib.sha1,  # what a TPM of that bank computes; no default policy accepts the bank
    Alg.SHA256: hashlib.sha256,
    Alg.SHA384: hashlib.sha384,
    Alg.SHA512: hashlib.sha512,
}


def digest_of(bank: Alg, data: bytes) -> bytes:
    """Hash `data` with the algorithm of a bank.

    Raises:
        FormatError: an algorithm that we do not compute (SM3, SHA-3).
    """
    function = _HASHES.get(bank)
    if function is None:
        raise FormatError(f"hash {bank.name} is not supported")
    return function(data).digest()


def digest_size(bank: Alg) -> int:
    """Give the size in bytes of a bank's registers; see `digest_of` for what it raises."""
    return len(digest_of(bank, b""))


def initial(bank: Alg, pcr: int, *, locality: int = 0) -> bytes:
    """Give a register's value after a reset; PCR 0 holds the locality of TPM2_Startup."""
    size = digest_size(bank)
    if pcr in _DRTM:
        return b"\xff" * size
    return (locality if pcr == 0 else 0).to_bytes(size, "big")


def extend(bank: Alg, value: bytes, digest: bytes) -> bytes:
    """Give the register's next value: H(old ‖ digest)."""
    return digest_of(bank, value + digest)


def replay(bank: Alg, digests: Iterable[bytes], *, pcr: int, locality: int = 0) -> bytes:
    """Give the value of register `pcr` after all `digests`, in order."""
    value = initial(bank, pcr, locality=locality)
    for digest in digests:
        value = extend(bank, value, digest)
    return value


def quote_digest(hash_alg: Alg, values: Mapping[int, bytes]) -> bytes:
    """Give a quote's pcrDigest: the hash of the registers' values, ascending by number.

    `hash_alg` is the signing scheme's, whatever the bank (Part 3, section 18.4, TPM2_Quote).
    """
    return digest_of(hash_alg, b"".join(values[pcr] for pcr in sorted(values)))
