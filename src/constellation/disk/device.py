"""What a bare device has at its ends, and how the file system on it is mounted."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.proc import run

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ENCRYPTED",
    "flush",
    "mount",
    "read_start",
    "unmount",
    "write_in_order",
    "write_zeros_at_ends",
]

ENCRYPTED = "encrypted"
"""The folder of a state disk's file system that holds all that is not public."""

_BLANK_HEAD_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_ENDS_BYTES = 8 * 1024 * 1024
_MOUNT_TIMEOUT_S = 30
_SYNC_TIMEOUT_S = 120


def read_start(device: Path, size: int) -> tuple[bytes, bool]:
    """Read the first `size` bytes; say too whether first 16 MiB and last 1 MiB are zero.

    Raises:
        Unavailable: it cannot be read.
    """
    try:
        with device.open("rb", buffering=0) as file:
            first = file.read(size) or b""
            end = file.seek(0, os.SEEK_END)
            blank = not any(first) and _zero(file.fileno(), 0, min(end, _BLANK_HEAD_BYTES))
            blank = blank and _zero(file.fileno(), max(0, end - _CHUNK_BYTES), end)
    except OSError as error:
        raise Unavailable(f"state disk {device}: {error.strerror}") from error
    return first, blank


def write_zeros_at_ends(device: Path) -> None:
    """Write zeros over the first and the last 8 MiB: what looks for file systems reads there.

    Raises:
        Unavailable: it cannot be written.
    """
    try:
        with device.open("r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            for start in (0, max(0, end - _ENDS_BYTES)):
                os.pwrite(file.fileno(), bytes(min(_ENDS_BYTES, end - start)), start)
            os.fsync(file.fileno())
    except OSError as error:
        raise Unavailable(f"state disk {device}: {error.strerror}") from error


def write_in_order(device: Path, writes: tuple[tuple[int, bytes], ...]) -> None:
    """Write each (offset, bytes) to the medium, one after the other: a power cut keeps the order.

    Raises:
        Unavailable: it cannot be written.
    """
    try:
        handle = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for offset, data in writes:
                if os.pwrite(handle, data, offset) != len(data):
                    raise Unavailable(f"state disk {device}: it is too small")
                os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise Unavailable(f"state disk {device}: {error.strerror}") from error


async def mount(device: Path, mount_point: Path) -> None:
    """Mount the ext4 file system on `device`. Raises Unavailable."""
    await asyncio.to_thread(_prepare, mount_point)
    await run(
        *("mount", "-t", "ext4", "-o", "noatime,nodev,nosuid", device, mount_point),
        timeout_s=_MOUNT_TIMEOUT_S,
    )


async def unmount(mount_point: Path) -> None:
    """Unmount, if it is mounted."""
    await run("umount", mount_point, timeout_s=_MOUNT_TIMEOUT_S, check=False)


async def flush(mount_point: Path) -> None:
    """Wait until all that was written below `mount_point` is on the medium. Raises Unavailable."""
    await run("sync", "--file-system", mount_point, timeout_s=_SYNC_TIMEOUT_S)


def _prepare(mount_point: Path) -> None:
    mount_point.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mount_point.is_mount():
        raise Unavailable(f"{mount_point} is mounted already")


def _zero(handle: int, start: int, end: int) -> bool:
    for offset in range(start, end, _CHUNK_BYTES):
        chunk = os.pread(handle, min(_CHUNK_BYTES, end - offset), offset)
        if chunk.strip(b"\0"):
            return False
    return True
