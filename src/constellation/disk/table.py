"""Was the kernel told exactly what a state disk needs? dm-crypt's and dm-integrity's lines (pure).

Read back after cryptsetup has opened a disk, before anything is written: whatever it made of a
header, this is what encrypts. Source: Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst
and dm-integrity.rst, section on parameters of the table; dmsetup(8), `table`.
"""

from __future__ import annotations

import os
import uuid as uuids
from typing import Final

from constellation.base.errors import Rejected
from constellation.disk.luks_header import DATA_OFFSET_BYTES, SECTOR_BYTES, VOLUME_KEY_BYTES

__all__ = ["require_tables"]

_CIPHER: Final = "capi:authenc(hmac(sha256),xts(aes))-random"
_TAG_BYTES = 32 + 16  # HMAC-SHA-256, random IV
_DATA_OFFSET_SECTORS = DATA_OFFSET_BYTES // 512


def require_tables(
    crypt: str, integrity: str, *, uuid: bytes, device: int, integrity_device: int
) -> None:
    """Check both lines, as `dmsetup table` prints them; `device` numbers as in `st_rdev`.

    Raises:
        Rejected: with every word that differs.
    """
    size = crypt.split()[1:2]
    key = f":{VOLUME_KEY_BYTES}:logon:cryptsetup:{uuids.UUID(bytes=uuid)}-d0"
    wanted = (
        *("0", *size, "crypt", _CIPHER, key, "0", _number(integrity_device), "0"),
        *("2", f"integrity:{_TAG_BYTES}:aead", f"sector_size:{SECTOR_BYTES}"),
    )
    findings = list(_differences("dm-crypt", tuple(crypt.split()), wanted))
    # journal's size and times follow the disk's size: they decide about speed alone
    first = tuple(integrity.split())[:7]
    wanted = (
        *("0", *size, "integrity"),
        *(_number(device), str(_DATA_OFFSET_SECTORS), str(_TAG_BYTES), "J"),
    )
    findings += _differences("dm-integrity", first, wanted)
    if f"block_size:{SECTOR_BYTES}" not in integrity.split():
        findings.append("dm-integrity: blocks are not of 4096 bytes")
    if findings:
        raise Rejected(tuple(f"state disk: {finding}" for finding in findings))


def _differences(what: str, found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    if len(found) != len(wanted):
        return (f"{what}: {len(found)} words, want {len(wanted)}",)
    pairs = zip(found, wanted, strict=True)
    return tuple(f"{what}: {has[:80]}, want {want}" for has, want in pairs if has != want)


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
