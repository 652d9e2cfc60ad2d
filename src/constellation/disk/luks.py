"""A state disk that is confidential and authentic: LUKS2, dm-crypt over dm-integrity.

cryptsetup makes and opens it, and never sees the header on the disk: it works on a copy in memory
(`/run`), which was checked against exactly our parameters (`luks_header`) and is what it then uses.
The key goes through its standard input. What the kernel was told in the end is read back before the
first write. A new disk bears a marker until it is finished; only then its header is written.

Nothing is wiped when a disk is formatted, so that the time does not grow with the disk: a sector
that was never written has no valid tag, and reading it is an error, as for a sector that somebody
changed. ext4 reads nothing that it did not write, if it is made as here: no copies of the
superblock that are written in parts, a journal written from end to end.
Source: cryptsetup-luksFormat(8), -open(8); Linux, Documentation/admin-guide/device-mapper/
dm-crypt.rst and dm-integrity.rst.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid as uuids
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.base.files import write_atomic
from constellation.base.proc import Failed, run
from constellation.disk import device as devices
from constellation.disk.luks_header import (
    CIPHER,
    DATA_OFFSET_BYTES,
    HEADER_BYTES,
    KDF_ITERATIONS,
    KEY_BITS,
    KEYSLOTS_BYTES,
    MARKER,
    SECTOR_BYTES,
    finishing_writes,
    judge_luks,
)
from constellation.disk.superblock import LABEL, DiskState, State
from constellation.disk.table import require_tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.base.secret import Secret

__all__ = ["KEY_BYTES", "MAPPED", "finish", "format_and_open", "inspect", "open_known"]

KEY_BYTES: Final = 64
"""Size of a disk's key: it opens the key slot, where the volume key lies."""

MAPPED: Final = "constellation-state-disk"
_HEADER_COPY = Path("/run/constellation/state-disk-header")
_MAPPER = Path("/dev/mapper")
_FORMAT_TIMEOUT_S = 300
_OPEN_TIMEOUT_S = 60
_WRONG_KEY = 2  # cryptsetup(8), "Return codes"
# no udev: libdevmapper makes the nodes itself, and does not wait for anybody's rules
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DM_DISABLE_UDEV": "1",
}


def inspect(device: Path) -> DiskState:
    """Say whether `device` is new or known; see `state_disk.inspect`."""
    return _read(device)[1]


async def format_and_open(device: Path, uuid: bytes, key: Secret, *, mount_point: Path) -> None:
    """Format a new disk and leave it mounted; see `state_disk.format_and_open`."""
    (await asyncio.to_thread(inspect, device)).require_new()
    await asyncio.to_thread(devices.write_in_order, device, ((0, MARKER),))
    await asyncio.to_thread(_forget)
    await _cryptsetup(
        *("luksFormat", "--type", "luks2", "--label", LABEL, "--uuid", str(uuids.UUID(bytes=uuid))),
        *("--cipher", CIPHER, "--key-size", str(KEY_BITS), "--integrity", "hmac-sha256"),
        *("--sector-size", str(SECTOR_BYTES), "--integrity-no-wipe"),
        *("--pbkdf", "pbkdf2", "--hash", "sha256"),
        *("--pbkdf-force-iterations", str(KDF_ITERATIONS)),
        *("--luks2-metadata-size", "16k", "--luks2-keyslots-size", str(KEYSLOTS_BYTES)),
        *("--offset", str(DATA_OFFSET_BYTES // 512)),
        *("--header", _HEADER_COPY, device),
        key=key,
        timeout_s=_FORMAT_TIMEOUT_S,
    )
    await asyncio.to_thread(_check_made, uuid)
    async with _opened(device, uuid, key) as mapped:
        await asyncio.to_thread(devices.write_zeros_at_ends, mapped)
        await run(
            *("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "sparse_super2,^resize_inode"),
            *("-E", "num_backup_sb=0,lazy_itable_init=1,lazy_journal_init=0,nodiscard"),
            *("-J", "size=64", "-L", LABEL, "-U", str(uuids.UUID(bytes=uuid)), mapped),
            timeout_s=_FORMAT_TIMEOUT_S,
        )
        await devices.mount(mapped, mount_point)
        try:
            (mount_point / devices.ENCRYPTED).mkdir(mode=0o700)
        except BaseException:
            await devices.unmount(mount_point)
            raise


async def finish(device: Path, *, mount_point: Path) -> None:
    """Make a formatted disk count as known; see `state_disk.finish`."""
    await devices.flush(mount_point)
    header = await asyncio.to_thread(_made)
    if judge_luks(header, blank=False).state is not State.KNOWN:
        raise Rejected((f"state disk: {_HEADER_COPY} is no finished header",))
    await asyncio.to_thread(devices.write_in_order, device, finishing_writes(header))
    await asyncio.to_thread(_forget)


async def open_known(device: Path, uuid: bytes, key: Secret, *, mount_point: Path) -> None:
    """Open and mount a known disk; see `state_disk.open_known`."""
    header, found = await asyncio.to_thread(_read, device)
    found.require_known(uuid)
    await asyncio.to_thread(_copy, header)
    try:
        async with _opened(device, uuid, key) as mapped:
            await devices.mount(mapped, mount_point)
    finally:
        await asyncio.to_thread(_forget)


@contextlib.asynccontextmanager
async def _opened(device: Path, uuid: bytes, key: Secret) -> AsyncIterator[Path]:
    """Open the disk by the header in memory; it is closed again if the block fails.

    Raises:
        Rejected: the key is not this disk's, or the kernel was told something else.
        Unavailable: it did not open.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes, want {KEY_BYTES}")
    try:
        await _cryptsetup(
            *("open", "--type", "luks2", "--key-slot", "0", "--disable-external-tokens"),
            *("--header", _HEADER_COPY, device, MAPPED),
            key=key,
            timeout_s=_OPEN_TIMEOUT_S,
        )
    except Failed as error:
        if error.finished is not None and error.finished.returncode == _WRONG_KEY:
            raise Rejected(("state disk: the key does not open its key slot",)) from None
        raise
    try:
        await _require_told(device, uuid)
        yield _MAPPER / MAPPED
    except BaseException:
        await run("cryptsetup", "close", MAPPED, timeout_s=_OPEN_TIMEOUT_S, env=_ENVIRONMENT,
                  check=False)  # fmt: skip
        raise


async def _require_told(device: Path, uuid: bytes) -> None:
    """Demand that the kernel maps this device, with our ciphers, and nothing else."""
    tables = []
    for name in (MAPPED, f"{MAPPED}_dif"):
        told = await run("dmsetup", "table", name, timeout_s=_OPEN_TIMEOUT_S, env=_ENVIRONMENT)
        tables.append(told.stdout.decode("ascii", "replace"))
    lower = _MAPPER / f"{MAPPED}_dif"
    numbers = [(await asyncio.to_thread(os.stat, path)).st_rdev for path in (device, lower)]
    require_tables(*tables, uuid=uuid, device=numbers[0], integrity_device=numbers[1])


async def _cryptsetup(*words: str | Path, key: Secret, timeout_s: float) -> None:
    await run(
        *("cryptsetup", "--batch-mode", *words, "--key-file", "-"),
        timeout_s=timeout_s,
        stdin=key.reveal(),
        env=_ENVIRONMENT,
    )


def _read(device: Path) -> tuple[bytes, DiskState]:
    header, blank = devices.read_start(device, HEADER_BYTES)
    return header, judge_luks(header, blank=blank)


def _copy(header: bytes) -> None:
    """Lay the header's checked bytes into memory; what lies behind them on the disk is not read."""
    write_atomic(_HEADER_COPY, header.ljust(DATA_OFFSET_BYTES, b"\0"), mode=0o600)


def _forget() -> None:
    _HEADER_COPY.unlink(missing_ok=True)


def _made() -> bytes:
    try:
        with _HEADER_COPY.open("rb") as file:
            return file.read(HEADER_BYTES)
    except OSError as error:
        raise Unavailable(f"{_HEADER_COPY}: {error.strerror}") from error


def _check_made(uuid: bytes) -> None:
    """Demand of cryptsetup what is demanded of a disk: parameters change with its versions."""
    header = _made()
    found = judge_luks(header, blank=False)
    if found != DiskState(state=State.KNOWN, uuid=uuid):
        raise FormatError(f"cryptsetup made a header of {found.state} {found.uuid.hex()}")
    _copy(header)
