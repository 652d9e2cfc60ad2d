"""Partition tables: what is written is read back, and what is damaged is refused."""

from __future__ import annotations

import uuid
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.image import gpt

DISK = uuid.UUID(int=7)


def partition(name: str = "root-0123", content: bytes = b"x" * 700) -> gpt.Partition:
    return gpt.Partition(
        type=gpt.ROOT_X86_64, guid=uuid.UUID(int=len(name)), name=name, content=content
    )


def disk() -> bytes:
    esp = gpt.Partition(type=gpt.EFI_SYSTEM, guid=uuid.UUID(int=1), name="esp", content=b"e")
    return gpt.pack_disk((esp, partition()), guid=DISK)


def sealed(data: bytearray, *, backup: bool) -> bytes:
    """Make checksums right again, so that another check has to refuse."""
    last = len(data) // gpt.BLOCK_BYTES - 1
    for lba, entries in ((1, 2), (last, last - 32))[: 2 if backup else 1]:
        table = bytes(data[entries * 512 : (entries + 32) * 512])
        header = data[lba * 512 : lba * 512 + 92]
        header[88:92] = zlib.crc32(table).to_bytes(4, "little")
        header[16:20] = bytes(4)
        header[16:20] = zlib.crc32(header).to_bytes(4, "little")
        data[lba * 512 : lba * 512 + 92] = header
    return bytes(data)


def test_partitions_are_read_back_where_their_content_lies() -> None:
    data = disk()
    esp, root = gpt.parse_disk(data)
    assert (esp.type, esp.name, root.type, root.name) == (
        gpt.EFI_SYSTEM, "esp", gpt.ROOT_X86_64, "root-0123",
    )  # fmt: skip
    assert data[esp.start : esp.start + 2] == b"e\0"
    assert data[root.start : root.start + root.size] == (b"x" * 700).ljust(1024, b"\0")
    assert root.start % gpt.ALIGNMENT_BYTES == 0
    assert len(data) % gpt.ALIGNMENT_BYTES == 0


def test_the_same_partitions_are_the_same_disk() -> None:
    assert disk() == disk()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["first", "last"]), st.integers(0, 91), st.integers(0, 7))
def test_a_flipped_bit_of_a_header_is_refused(which: str, byte: int, bit: int) -> None:
    data = bytearray(disk())
    offset = {"first": 512, "last": len(data) - 512}[which] + byte
    data[offset] ^= 1 << bit
    with pytest.raises(FormatError):
        gpt.parse_disk(bytes(data))


@settings(max_examples=40, deadline=None)
@given(st.integers(1024, 1024 + 256 - 1), st.integers(0, 7))
def test_a_flipped_bit_of_the_entries_is_refused(offset: int, bit: int) -> None:
    data = bytearray(disk())
    data[offset] ^= 1 << bit
    with pytest.raises(FormatError, match="not whole"):
        gpt.parse_disk(bytes(data))


def test_a_backup_that_says_something_else_is_refused() -> None:
    data = bytearray(disk())
    data[1024 + 56] ^= 2  # a name, with checksums made right in the first table alone
    with pytest.raises(FormatError, match="backup"):
        gpt.parse_disk(sealed(data, backup=False))


def test_partitions_over_one_another_are_refused() -> None:
    data = bytearray(disk())
    for table in (1024, len(data) - 33 * 512):
        data[table + 128 + 32 : table + 128 + 48] = data[table + 32 : table + 48]
    with pytest.raises(FormatError, match="over one another"):
        gpt.parse_disk(sealed(data, backup=True))


def test_a_partition_outside_the_usable_blocks_is_refused() -> None:
    data = bytearray(disk())
    for table in (1024, len(data) - 33 * 512):
        data[table + 32 : table + 40] = (2).to_bytes(8, "little")
    with pytest.raises(FormatError, match="from block 2"):
        gpt.parse_disk(sealed(data, backup=True))


def test_a_disk_without_a_protective_mbr_is_refused() -> None:
    data = bytearray(disk())
    data[450] = 0x83
    with pytest.raises(FormatError, match="protective"):
        gpt.parse_disk(bytes(data))


@pytest.mark.parametrize("bad", [partition(name="n" * 37), partition(content=b"")])
def test_what_has_no_place_in_a_table_is_not_written(bad: gpt.Partition) -> None:
    with pytest.raises(FormatError):
        gpt.pack_disk((bad,), guid=DISK)


@given(st.binary(max_size=4096))
def test_junk_is_a_format_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(FormatError):
        gpt.parse_disk(data)
