"""What this control plane asks its provider's API with, and which sealed one it was taken from.

In a folder of its own on the encrypted disk, the only one of `keys` that the operator's pod sees.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.base.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KeptAccess"]

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAccess:
    """The files in a control plane's state folder."""

    state: Path  # /var/lib/constellation

    def access(self) -> Secret | None:
        """Give it; None: the owner gave none. Raises Unavailable."""
        data = _read(self._folder / "access.json")
        return None if data is None else Secret(data)

    def taken(self) -> bytes:
        """Give the SHA-256 of the sealed one that it was taken from; empty: `init` gave it."""
        return (_read(self._folder / "taken") or b"")[:_DIGEST_BYTES]

    def take(self, access: Secret, *, sealed: bytes) -> None:
        """Keep another, on the disk before this returns. Raises Unavailable: the disk is full."""
        # this order: what `taken` names is what is used, also after a crash between the two
        write_atomic(self._folder / "access.json", access.reveal(), mode=0o600)
        write_atomic(self._folder / "taken", hashlib.sha256(sealed).digest(), mode=0o600)

    @property
    def _folder(self) -> Path:
        return self.state / "keys" / "provider"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
