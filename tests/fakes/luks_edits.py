"""What whoever owns a disk can do to a LUKS2 header: edit it, and make its checksums fit again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COPIES_BYTES", "COPY_BYTES", "sealed", "setting", "with_json"]

COPY_BYTES = 16384
COPIES_BYTES = 2 * COPY_BYTES
_CHECKSUM = slice(448, 512)


def sealed(
    start: bytes, edit: Callable[[bytearray], None], *, copies: tuple[int, ...] = (0, COPY_BYTES)
) -> bytes:
    """Edit copies of a header (32 KiB), and give each a checksum that fits."""
    whole = bytearray(start)
    for at in copies:
        copy = whole[at : at + COPY_BYTES]
        edit(copy)
        copy[_CHECKSUM] = bytes(64)
        copy[_CHECKSUM] = hashlib.sha256(copy).digest().ljust(64, b"\0")
        whole[at : at + COPY_BYTES] = copy
    return bytes(whole)


def with_json(start: bytes, edit: Callable[[Any], None]) -> bytes:
    """Edit the JSON of both copies."""

    def change(copy: bytearray) -> None:
        found = json.loads(bytes(copy[4096:]).partition(b"\0")[0])
        edit(found)
        copy[4096:] = json.dumps(found).encode().ljust(COPY_BYTES - 4096, b"\0")

    return sealed(start, change)


def setting(path: str, value: object) -> Callable[[Any], None]:
    """Give an edit that sets one value of the JSON, e.g. `segments/0/encryption`."""

    def edit(found: Any) -> None:
        *above, last = path.split("/")
        for name in above:
            found = found[name]
        found[last] = value

    return edit
