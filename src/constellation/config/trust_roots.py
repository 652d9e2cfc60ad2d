"""Authorities that the user names for attestation keys which no vendor certifies: a PEM file.

For "qemu-vtpm" on hosts and clouds of the user's own: what such a root has signed is believed, and
nothing else. Chips have their makers' authorities, which are built in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from constellation.base.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_trust_roots"]

_MAX_BYTES = 64 * 1024


def read_trust_roots(folder: Path, name: str) -> tuple[bytes, ...]:
    """Read the certificates (DER) of a file; none for an empty name.

    Raises:
        UserError: it cannot be read, is too long, or holds no certificate.
    """
    if not name:
        return ()
    path = folder / name
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        found = x509.load_pem_x509_certificates(data) if len(data) <= _MAX_BYTES else []
    except ValueError:
        found = []
    if not found:
        raise UserError("expected certificates (PEM), 64 KiB at most", where=str(path))
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in found)
