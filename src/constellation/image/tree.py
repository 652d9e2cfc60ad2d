"""How files become a tar stream that depends on nothing but names, contents and one time (pure).

Streams written here end without the two zero blocks of a tar file: joined, they are one archive.
Sources: POSIX.1-2017 pax, section "ustar Interchange Format"; tarfile's documentation.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

__all__ = ["END", "Entry", "pack"]

END = bytes(1024)
"""The two blocks that end an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file (or link, if `link` is set) of an image, by its path without leading slash."""

    path: str
    data: bytes = b""
    link: str = ""
    executable: bool = False


def pack(entries: tuple[Entry, ...], *, time: int, existing: frozenset[str]) -> bytes:
    """Write entries sorted by path, owner root, with the folders that they need.

    Folders in `existing` are in an earlier stream already and are not written again.
    """
    output = io.BytesIO()
    tar = tarfile.TarFile(fileobj=output, mode="w", format=tarfile.PAX_FORMAT)
    written = set(existing)
    for entry in sorted(entries, key=lambda e: e.path.split("/")):
        parts = entry.path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in written:
                written.add(folder)
                tar.addfile(_info(folder, time, kind=tarfile.DIRTYPE, mode=0o755))
        if entry.link:
            info = _info(entry.path, time, kind=tarfile.SYMTYPE, mode=0o777)
            info.linkname = entry.link
            tar.addfile(info)
        else:
            info = _info(entry.path, time, mode=0o755 if entry.executable else 0o644)
            info.size = len(entry.data)
            tar.addfile(info, io.BytesIO(entry.data))
    # never closed: close() would write the end marks
    return output.getvalue()


def _info(path: str, time: int, *, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, time
    return info
