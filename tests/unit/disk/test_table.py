"""What the kernel maps is exactly what a state disk needs; lines of a real one."""

from __future__ import annotations

import os

import pytest

from constellation.base.errors import Rejected
from constellation.disk.table import require_tables

UUID = bytes(range(16))
# `dmsetup table` under Debian's kernel 6.12.118, as cryptsetup 2.7.5 left it
CRYPT = (
    "0 2054536 crypt capi:authenc(hmac(sha256),xts(aes))-random "
    ":96:logon:cryptsetup:00010203-0405-0607-0809-0a0b0c0d0e0f-d0 0 253:0 0 2 "
    "integrity:48:aead sector_size:4096\n"
)
INTEGRITY = (
    "0 2054536 integrity 254:0 2048 48 J 7 block_size:4096 journal_sectors:16368 "
    "interleave_sectors:32768 buffer_sectors:128 journal_watermark:50 commit_time:10000 "
    "fix_padding\n"
)


def require(crypt: str = CRYPT, integrity: str = INTEGRITY) -> None:
    require_tables(
        crypt,
        integrity,
        uuid=UUID,
        device=os.makedev(254, 0),
        integrity_device=os.makedev(253, 0),
    )


def test_what_the_kernel_was_told_is_what_we_want() -> None:
    require()


@pytest.mark.parametrize(
    ("has", "instead"),
    [
        ("capi:authenc(hmac(sha256),xts(aes))-random", "aes-xts-plain64"),
        (":96:", ":64:"),
        ("0a0b0c0d0e0f-d0", "0a0b0c0d0e0e-d0"),
        ("253:0", "253:1"),
        ("-d0 0 ", "-d0 8 "),
        ("integrity:48:aead", "integrity:28:aead"),
        ("sector_size:4096", "sector_size:512"),
        ("sector_size:4096", "sector_size:4096 allow_discards"),
        ("crypt", "linear"),
        (CRYPT, ""),
        (CRYPT, CRYPT + CRYPT),
    ],
)
def test_another_line_of_dm_crypt_is_refused(has: str, instead: str) -> None:
    assert has in CRYPT
    with pytest.raises(Rejected, match="dm-crypt"):
        require(CRYPT.replace(has, instead, 1))


@pytest.mark.parametrize(
    ("has", "instead"),
    [
        ("254:0", "254:16"),
        ("254:0 2048", "254:0 4096"),
        (" 48 ", " 4 "),
        (" J ", " D "),
        (" J ", " R "),
        ("2054536", "2054528"),
        ("block_size:4096", "block_size:512"),
        (INTEGRITY, ""),
    ],
)
def test_another_line_of_dm_integrity_is_refused(has: str, instead: str) -> None:
    assert has in INTEGRITY
    with pytest.raises(Rejected, match="dm-integrity"):
        require(integrity=INTEGRITY.replace(has, instead, 1))
