"""RTMR arithmetic: how a TD's run-time registers start and are extended, and what they will hold.

Four registers of 48 bytes (SHA-384), zero when the TD starts; firmware extends 0 and 1, boot
loader and kernel 1 and 2, the rest 3. Source: "Intel TDX Module 1.5 ABI specification",
TDG.MR.RTMR.EXTEND; UEFI 2.10, section 38.4.1 (which register stands for which PCR).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COUNT", "DIGEST_BYTES", "ZERO", "extend", "predict", "register_of_pcr"]

COUNT = 4
DIGEST_BYTES = 48
ZERO = bytes(DIGEST_BYTES)
"""A register that nothing has extended."""

_OF_PCR = {1: 0, 7: 0, **dict.fromkeys(range(2, 7), 1), **dict.fromkeys(range(8, 16), 2)}


def extend(value: bytes, digest: bytes) -> bytes:
    """Give the register's next value: SHA-384(old ‖ digest), both 48 bytes."""
    if len(value) != DIGEST_BYTES or len(digest) != DIGEST_BYTES:
        raise ValueError(f"RTMR: {len(value)} and {len(digest)} bytes, want {DIGEST_BYTES} each")
    return hashlib.sha384(value + digest).digest()


def predict(digests: Iterable[bytes]) -> bytes:
    """Give a register's value after all `digests` (48 bytes each), in order."""
    value = ZERO
    for digest in digests:
        value = extend(value, digest)
    return value


def register_of_pcr(pcr: int) -> int | None:
    """Give the RTMR that firmware and boot loaders use for a PCR; None: PCR 0 stands for MRTD.

    Raises:
        ValueError: a PCR that no register stands for.
    """
    if pcr and pcr not in _OF_PCR:
        raise ValueError(f"no RTMR stands for PCR {pcr}")
    return _OF_PCR.get(pcr)
