"""How a read-only device is checked block by block: dm-verity's hash tree and its one root digest.

Blocks of 4096 bytes; SHA-256; no salt, so that the root digest is a function of the bytes alone; no
superblock: all that the kernel is told (os/machine/init) comes from the measured command line, and
nothing that lies on the disk is believed before it was checked. The tree's levels lie one after
another, the smallest first. Source: Linux, Documentation/admin-guide/device-mapper/verity.rst, and
drivers/md/dm-verity-target.c, hash_at_level and verity_ctr (format version 1).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from constellation.base.errors import FormatError

__all__ = ["BLOCK_BYTES", "HashTree", "hash_tree"]

BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HashTree:
    """A device's hash tree (whole blocks), its root digest (32 bytes), and how many data blocks."""

    blocks: bytes
    root_digest: bytes
    data_blocks: int


def hash_tree(data: bytes) -> HashTree:
    """Hash a device's content, which is a whole number of blocks, two at least.

    Raises:
        FormatError: another size.
    """
    if len(data) % BLOCK_BYTES or len(data) < 2 * BLOCK_BYTES:
        raise FormatError(f"dm-verity: {len(data)} bytes, want two or more blocks of {BLOCK_BYTES}")
    levels = [_level(data)]
    while len(levels[-1]) > BLOCK_BYTES:
        levels.append(_level(levels[-1]))
    return HashTree(
        blocks=b"".join(reversed(levels)),
        root_digest=hashlib.sha256(levels[-1]).digest(),
        data_blocks=len(data) // BLOCK_BYTES,
    )


def _level(below: bytes) -> bytes:
    view = memoryview(below)
    digests = b"".join(
        hashlib.sha256(view[start : start + BLOCK_BYTES]).digest()
        for start in range(0, len(below), BLOCK_BYTES)
    )
    return digests + bytes(-len(digests) % BLOCK_BYTES)
