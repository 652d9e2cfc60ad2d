"""A certificate that the library carries: its PEM text, checked against the digest beside it."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["certificate"]


def certificate(sha256: str, pem: str) -> bytes:
    """Give the DER of one PEM certificate whose SHA-256 (hexadecimal) must be the stated one.

    Raises:
        ValueError: another certificate: the source was edited.
    """
    der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
    if (found := hashlib.sha256(der).hexdigest()) != sha256:
        raise ValueError(f"certificate {found}, want {sha256}")
    return der
