"""A node's state disk, from a bare device to the mounted folders that hold all its state.

ext4 with native encryption (`fscrypt`), for machines without device mapper. Confidential, not
authentic. A known disk that does not fit is refused, never formatted; a folder is written to only
after version, modes and key identifier of its policy were read back.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import uuid as uuids
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.base import decode
from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.base.files import write_atomic
from constellation.base.proc import run
from constellation.disk import fscrypt
from constellation.disk.superblock import (
    LABEL,
    LABEL_UNFINISHED,
    SUPERBLOCK_END,
    DiskState,
    State,
    judge,
)

if TYPE_CHECKING:
    from constellation.base.secret import Secret

__all__ = [
    "BINDS",
    "DEVICE",
    "DISK_JSON",
    "MOUNT_POINT",
    "DiskRecord",
    "bind_folders",
    "device_from_host",
    "finish",
    "format_and_open",
    "inspect",
    "open_known",
    "read_record",
    "require_enough_for",
    "write_record",
]

MOUNT_POINT = Path("/run/state")
DISK_JSON = Path("/run/constellation/disk.json")
DEVICE = Path("/dev/constellation-state")
"""Not below /run, which is mounted with `nodev`."""

BINDS: tuple[tuple[str, Path, int], ...] = (
    ("constellation", Path("/var/lib/constellation"), 0o700),
    ("containerd", Path("/var/lib/containerd"), 0o711),
    ("kubelet", Path("/var/lib/kubelet"), 0o700),
    ("etcd", Path("/var/lib/etcd"), 0o700),
    ("etc-kubernetes", Path("/etc/kubernetes"), 0o700),
    ("log-pods", Path("/var/log/pods"), 0o755),
)
"""Folder below `encrypted` -> where the node sees it, and its mode."""

_ENCRYPTED = "encrypted"
_HOST_FILE = Path("/run/constellation/host/state-disk")
_BLANK_HEAD_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_MKFS_TIMEOUT_S = 120
_MOUNT_TIMEOUT_S = 30
# linux/fs.h: _IOW(0x94, 50, char[256])
_SET_LABEL = 0x41009432
_LABEL_ROOM = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRecord:
    """`/run/constellation/disk.json`: where the state disk stands; `uuid` is 32 hex digits."""

    state: State
    uuid: str


def device_from_host(host_file: Path = _HOST_FILE, device: Path = DEVICE) -> Path:
    """Make the device node that the machine names in `host_file` (text `MAJOR:MINOR`).

    Raises:
        FormatError: not two numbers.
        Unavailable: the machine names none.
    """
    try:
        text = host_file.read_text("ascii").strip()
    except FileNotFoundError:
        raise Unavailable(f"this machine has no state disk ({host_file} is missing)") from None
    major, _, minor = text.partition(":")
    if not (major.isdigit() and minor.isdigit()):
        raise FormatError(f"{host_file}: {text[:40]!r}, want MAJOR:MINOR")
    number = os.makedev(int(major), int(minor))
    device.unlink(missing_ok=True)
    os.mknod(device, stat.S_IFBLK | 0o600, number)
    return device


def require_enough_for(variant: Variant) -> None:
    """Refuse native encryption where a disk has to be authentic: everywhere but on a local node.

    Raises:
        Rejected: the machine is none of the local cloud's.
    """
    if variant is not Variant.LOCAL_VTPM:
        raise Rejected(
            (f"state disk: native encryption is not authentic, and {variant} demands that",),
            hint="LUKS2 with integrity, which such a machine needs, is not built yet",
        )


def inspect(device: Path) -> DiskState:
    """Say whether `device` is blank (new) or a state disk of ours (known, with its uuid).

    Raises:
        Rejected: anything else.
        Unavailable: it cannot be read.
    """
    try:
        with device.open("rb", buffering=0) as file:
            first = file.read(SUPERBLOCK_END) or b""
            size = file.seek(0, os.SEEK_END)
            blank = not any(first) and _zero(file.fileno(), 0, min(size, _BLANK_HEAD_BYTES))
            blank = blank and _zero(file.fileno(), max(0, size - _CHUNK_BYTES), size)
    except OSError as error:
        raise Unavailable(f"state disk {device}: {error.strerror}") from error
    return judge(first, blank=blank)


async def format_and_open(
    device: Path, uuid: bytes, key: Secret, *, mount_point: Path = MOUNT_POINT
) -> None:
    """Format a new disk, encrypt its folder with `key` (64 bytes), and leave it mounted.

    It counts as new until `finish`: what a node cannot do without is written before that.

    Raises:
        Rejected: the disk is not new, or encryption is not what was asked for.
        Unavailable: formatting or mounting failed.
    """
    if (found := await asyncio.to_thread(inspect, device)).state is not State.NEW:
        raise Rejected((f"state disk: {found.state}, want new",), hint="it is never formatted")
    fscrypt.our_policy(key)
    await run(
        *("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "encrypt,stable_inodes"),
        *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        *("-L", LABEL_UNFINISHED, "-U", str(uuids.UUID(bytes=uuid)), device),
        timeout_s=_MKFS_TIMEOUT_S,
    )
    await _mount(device, mount_point)
    try:
        await asyncio.to_thread(_encrypt, mount_point, key)
    except BaseException:
        await _unmount(mount_point)
        raise


async def finish(device: Path = DEVICE, *, mount_point: Path = MOUNT_POINT) -> None:
    """Make a formatted disk count as known; its folder holds what the next boot needs.

    Returns when that stands on the medium: a power cut afterwards makes no new disk of it.

    Raises:
        Unavailable: the disk did not take its name.
    """
    await asyncio.to_thread(_name, device, mount_point)


async def open_known(
    device: Path, uuid: bytes, key: Secret, *, mount_point: Path = MOUNT_POINT
) -> None:
    """Mount a known disk and unlock its folder with `key` (64 bytes).

    Raises:
        Rejected: not the disk with this uuid, or not encrypted with this key as it must be.
        Unavailable: mounting failed.
    """
    policy = fscrypt.our_policy(key)
    found = await asyncio.to_thread(inspect, device)
    if found.state is not State.KNOWN or found.uuid != uuid:
        raise Rejected((f"state disk: {found.state} {found.uuid.hex()}, want known {uuid.hex()}",))
    await _mount(device, mount_point)
    try:
        await asyncio.to_thread(fscrypt.require_policy, mount_point / _ENCRYPTED, policy)
        await asyncio.to_thread(fscrypt.add_key, mount_point, key)
    except BaseException:
        await _unmount(mount_point)
        raise


async def bind_folders(mount_point: Path = MOUNT_POINT, *, root: Path = Path("/")) -> None:
    """Bind the folders of `BINDS` to their places below `root`; done already is not an error."""
    for name, target, mode in BINDS:
        source = mount_point / _ENCRYPTED / name
        place = root / target.relative_to("/")
        source.mkdir(mode=mode, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        if not place.is_mount():
            await run("mount", "--bind", source, place, timeout_s=_MOUNT_TIMEOUT_S)
    (mount_point / "artifacts").mkdir(mode=0o755, exist_ok=True)


def write_record(record: DiskRecord, path: Path = DISK_JSON) -> None:
    """Tell the programs that come later where the disk stands."""
    write_atomic(path, decode.dump(record))


def read_record(path: Path = DISK_JSON) -> DiskRecord:
    """Read what `write_record` wrote.

    Raises:
        Unavailable: the disk mapper has not said anything yet.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Unavailable(f"{path} is missing: the disk mapper has not run") from None
    return decode.load(DiskRecord, data, what=str(path), max_bytes=4096)


def _zero(handle: int, start: int, end: int) -> bool:
    for offset in range(start, end, _CHUNK_BYTES):
        chunk = os.pread(handle, min(_CHUNK_BYTES, end - offset), offset)
        if chunk.strip(b"\0"):
            return False
    return True


def _encrypt(mount_point: Path, key: Secret) -> None:
    folder = mount_point / _ENCRYPTED
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


async def _mount(device: Path, mount_point: Path) -> None:
    await asyncio.to_thread(_prepare, mount_point)
    await run(
        *("mount", "-t", "ext4", "-o", "noatime,nodev,nosuid", device, mount_point),
        timeout_s=_MOUNT_TIMEOUT_S,
    )


def _prepare(mount_point: Path) -> None:
    mount_point.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mount_point.is_mount():
        raise Unavailable(f"{mount_point} is mounted already")


async def _unmount(mount_point: Path) -> None:
    await run("umount", mount_point, timeout_s=_MOUNT_TIMEOUT_S, check=False)
