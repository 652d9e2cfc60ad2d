"""A state disk with ext4's native encryption (`fscrypt`), for machines without device mapper.

Confidential, not authentic: for the local cloud alone. A folder is written to only after version,
modes and key identifier of its policy were read back.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import uuid as uuids
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.proc import run
from constellation.disk import fscrypt
from constellation.disk.device import ENCRYPTED, mount, read_start, unmount
from constellation.disk.superblock import (
    LABEL,
    LABEL_UNFINISHED,
    SUPERBLOCK_END,
    DiskState,
    judge,
)

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.secret import Secret

__all__ = ["finish", "format_and_open", "inspect", "open_known"]

_MKFS_TIMEOUT_S = 120
# linux/fs.h: _IOW(0x94, 50, char[256])
_SET_LABEL = 0x41009432
_LABEL_ROOM = 256


def inspect(device: Path) -> DiskState:
    """Say whether `device` is new or known; see `state_disk.inspect`."""
    first, blank = read_start(device, SUPERBLOCK_END)
    return judge(first, blank=blank)


async def format_and_open(device: Path, uuid: bytes, key: Secret, *, mount_point: Path) -> None:
    """Format a new disk and leave it mounted; see `state_disk.format_and_open`."""
    (await asyncio.to_thread(inspect, device)).require_new()
    fscrypt.our_policy(key)
    await run(
        *("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "encrypt,stable_inodes"),
        *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        *("-L", LABEL_UNFINISHED, "-U", str(uuids.UUID(bytes=uuid)), device),
        timeout_s=_MKFS_TIMEOUT_S,
    )
    await mount(device, mount_point)
    try:
        await asyncio.to_thread(_encrypt, mount_point, key)
    except BaseException:
        await unmount(mount_point)
        raise


async def finish(device: Path, *, mount_point: Path) -> None:
    """Make a formatted disk count as known; see `state_disk.finish`."""
    await asyncio.to_thread(_name, device, mount_point)


async def open_known(device: Path, uuid: bytes, key: Secret, *, mount_point: Path) -> None:
    """Mount a known disk and unlock its folder; see `state_disk.open_known`."""
    policy = fscrypt.our_policy(key)
    (await asyncio.to_thread(inspect, device)).require_known(uuid)
    await mount(device, mount_point)
    try:
        await asyncio.to_thread(fscrypt.require_policy, mount_point / ENCRYPTED, policy)
        await asyncio.to_thread(fscrypt.add_key, mount_point, key)
    except BaseException:
        await unmount(mount_point)
        raise


def _encrypt(mount_point: Path, key: Secret) -> None:
    folder = mount_point / ENCRYPTED
    fscrypt.add_key(mount_point, key)
    folder.mkdir(mode=0o700)
    fscrypt.protect(folder, key)
    handle = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _name(device: Path, mount_point: Path) -> None:
    try:
        folder = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, _SET_LABEL, LABEL.encode().ljust(_LABEL_ROOM, b"\0"))
            os.fsync(folder)
        finally:
            os.close(folder)
        # that was the journal; `inspect` reads the superblock where it lies, before any replay
        disk = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(disk)
        finally:
            os.close(disk)
    except OSError as error:
        raise Unavailable(f"naming the state disk: {error.strerror}") from error
