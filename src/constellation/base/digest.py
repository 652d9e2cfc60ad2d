"""Whether a file is the one that was meant: its SHA-256, and the error that names both."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WrongDigest", "digest_of"]


class WrongDigest(Untrusted):
    """A file is not the one that was expected; `name` says which, nothing of it was kept."""

    def __init__(self, name: str, *, expected: str, found: str, hint: str = "") -> None:
        super().__init__(f"{name}: SHA-256 expected {expected}, found {found}", hint=hint)
        self.name = name
        self.expected = expected
        self.found = found


def digest_of(path: Path) -> str:
    """Give the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
