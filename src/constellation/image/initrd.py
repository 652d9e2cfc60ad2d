"""How files become an initial RAM disk: a cpio archive of names and contents alone (pure).

Uncompressed, so that no compressor's version decides a measured byte. Source: Linux,
Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constellation.image.tree import Entry

__all__ = ["pack_initrd", "pack_record"]

_MAGIC = b"070701"
_LAST = "TRAILER!!!"
_FOLDER_MODE = stat.S_IFDIR | 0o755
_LINK_MODE = stat.S_IFLNK | 0o777


def pack_initrd(entries: tuple[Entry, ...], *, folders: tuple[str, ...]) -> bytes:
    """Write entries sorted by path, owner root, time zero, with the folders that they need.

    `folders` are wanted besides: where something will be mounted.
    """
    wanted = set(folders)
    for path in (*folders, *(entry.path for entry in entries)):
        parts = path.split("/")
        wanted |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    files = [(path, _FOLDER_MODE, b"") for path in wanted]
    for entry in entries:
        if entry.link:
            files.append((entry.path, _LINK_MODE, entry.link.encode()))
        else:
            mode = stat.S_IFREG | (0o755 if entry.executable else 0o644)
            files.append((entry.path, mode, entry.data))
    out = bytearray()
    for number, (path, mode, data) in enumerate(sorted(files), 1):
        out += pack_record(path, number=number, mode=mode, data=data)
    return bytes(out + pack_record(_LAST, number=0, mode=0, data=b""))


def pack_record(path: str, *, number: int, mode: int, data: bytes) -> bytes:
    """Write one record, a multiple of four bytes: owner root, time zero, one link."""
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (2), device number (2), name's size, check
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = _MAGIC + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
