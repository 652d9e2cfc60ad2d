"""How do private keys of whoever makes releases lie on the disk? PEM, mode 0600, never elsewhere.

A key is named by its file and never stands in argv, environment or a message. A file that others
may read is refused.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.base.errors import Conflict, FormatError, UserError
from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto import signing

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["make_key", "read_key", "read_public_key"]

_MAX_BYTES = 16 * 1024


def make_key(path: Path) -> Path:
    """Make a private key (P-256) at `path`; gives the file with its public half, `path`.pub.

    Raises:
        Conflict: there is a file already.
    """
    public = path.with_name(f"{path.name}.pub")
    for there in (path, public):
        if there.exists():
            raise Conflict(f"{there} exists and is not overwritten")
    key = signing.generate_key()
    write_atomic(path, signing.dump_private_key(key).reveal(), mode=0o600)
    write_atomic(
        public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return public


def read_key(path: Path) -> EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        UserError: no such file, not a P-256 key, or others may read it.
    """
    data = Secret(_read(path))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UserError(
            "others may read this private key", where=str(path), hint=f"chmod 600 {path}"
        )
    try:
        return signing.load_private_key(data)
    except FormatError as error:
        raise UserError(str(error), where=str(path)) from None


def read_public_key(path: Path) -> bytes:
    """Read a public key (PEM) as DER SubjectPublicKeyInfo. Raises UserError."""
    try:
        return signing.spki(signing.load_public_key_pem(_read(path)))
    except FormatError as error:
        raise UserError(
            str(error), where=str(path), hint="`constellation release key` writes FILE.pub"
        ) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
