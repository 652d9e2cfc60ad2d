"""Where on a disk do its partitions lie? A GUID partition table, written and read (pure).

Only what our images need: 512-byte blocks, 128 entries, a protective MBR, a backup at the end.
Source: UEFI 2.10, sections 5.2.3 (protective MBR), 5.3.2 (header) and 5.3.3 (entries); type GUIDs:
UAPI Group, Discoverable Partitions Specification. Nothing that is read here is authenticated.
"""

from __future__ import annotations

import itertools
import uuid
import zlib
from dataclasses import dataclass, replace
from typing import ClassVar

from constellation.base.binary import Layout, at
from constellation.base.errors import FormatError

__all__ = [
    "ALIGNMENT_BYTES",
    "BLOCK_BYTES",
    "EFI_SYSTEM",
    "ROOT_X86_64",
    "ROOT_X86_64_VERITY",
    "Partition",
    "PlacedPartition",
    "pack_disk",
    "parse_disk",
]

BLOCK_BYTES = 512
ALIGNMENT_BYTES = 1024 * 1024
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
ROOT_X86_64_VERITY = uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")

_ENTRIES = 128
_ENTRY_BYTES = 128
_TABLE_BLOCKS = _ENTRIES * _ENTRY_BYTES // BLOCK_BYTES
_FIRST_USABLE = 2 + _TABLE_BLOCKS
_READ_ONLY = 1 << 60  # Discoverable Partitions Specification, "Partition Flags"
_NAME_CHARACTERS = 36
_MBR_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition to write: its type, its own GUID, its name (36 characters), its content."""

    type: uuid.UUID
    guid: uuid.UUID
    name: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPartition:
    """One partition of a table that was read; `start` and `size` in bytes."""

    type: uuid.UUID
    guid: uuid.UUID
    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header(Layout):
    """UEFI 2.10, table 5-5."""

    SIZE: ClassVar[int] = 92
    signature: bytes = at(0, 8)
    revision: int = at(8, 4, integer=True)
    header_size: int = at(12, 4, integer=True)
    header_crc32: int = at(16, 4, integer=True)
    my_lba: int = at(24, 8, integer=True)
    alternate_lba: int = at(32, 8, integer=True)
    first_usable_lba: int = at(40, 8, integer=True)
    last_usable_lba: int = at(48, 8, integer=True)
    disk_guid: bytes = at(56, 16)
    partition_entry_lba: int = at(72, 8, integer=True)
    number_of_partition_entries: int = at(80, 4, integer=True)
    size_of_partition_entry: int = at(84, 4, integer=True)
    partition_entry_array_crc32: int = at(88, 4, integer=True)

    def sealed(self) -> _Header:
        """Give it with its own checksum."""
        return replace(self, header_crc32=zlib.crc32(replace(self, header_crc32=0).pack()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry(Layout):
    """UEFI 2.10, table 5-6."""

    SIZE: ClassVar[int] = _ENTRY_BYTES
    partition_type_guid: bytes = at(0, 16)
    unique_partition_guid: bytes = at(16, 16)
    starting_lba: int = at(32, 8, integer=True)
    ending_lba: int = at(40, 8, integer=True)
    attributes: int = at(48, 8, integer=True)
    partition_name: bytes = at(56, 72)


_FIXED = {
    "signature": b"EFI PART",
    "revision": 0x00010000,
    "header_size": _Header.SIZE,
    "number_of_partition_entries": _ENTRIES,
    "size_of_partition_entry": _ENTRY_BYTES,
}


def pack_disk(partitions: tuple[Partition, ...], *, guid: uuid.UUID) -> bytes:
    """Write a whole disk: tables, and the partitions one after another, aligned to 1 MiB.

    Raises:
        FormatError: more partitions than entries, or a name that is too long.
    """
    if len(partitions) > _ENTRIES:
        raise FormatError(f"GPT: {len(partitions)} partitions, at most {_ENTRIES}")
    out = bytearray(ALIGNMENT_BYTES)
    table = b""
    for partition in partitions:
        start = len(out)
        out += partition.content
        out += bytes(-len(out) % BLOCK_BYTES)
        table += _entry(partition, start=start, end=len(out)).pack()
        out += bytes(-len(out) % ALIGNMENT_BYTES)
    out += bytes(ALIGNMENT_BYTES)  # the backup's
    table = table.ljust(_ENTRIES * _ENTRY_BYTES, b"\0")
    last = len(out) // BLOCK_BYTES - 1
    for mine, other, entries in ((1, last, 2), (last, 1, last - _TABLE_BLOCKS)):
        header = _Header(
            signature=b"EFI PART",
            revision=0x00010000,
            header_size=_Header.SIZE,
            header_crc32=0,
            my_lba=mine,
            alternate_lba=other,
            first_usable_lba=_FIRST_USABLE,
            last_usable_lba=last - _TABLE_BLOCKS - 1,
            disk_guid=guid.bytes_le,
            partition_entry_lba=entries,
            number_of_partition_entries=_ENTRIES,
            size_of_partition_entry=_ENTRY_BYTES,
            partition_entry_array_crc32=zlib.crc32(table),
        ).sealed()
        out[mine * BLOCK_BYTES : mine * BLOCK_BYTES + _Header.SIZE] = header.pack()
        out[entries * BLOCK_BYTES : (entries + _TABLE_BLOCKS) * BLOCK_BYTES] = table
    out[:BLOCK_BYTES] = _protective_mbr(last)
    return bytes(out)


def parse_disk(data: bytes) -> tuple[PlacedPartition, ...]:
    """Read the partitions of a disk as `pack_disk` writes them, from its first table.

    Raises:
        FormatError: no such table, a checksum that is wrong, partitions outside the usable blocks
            or over one another, or a backup that says something else.
    """
    last = len(data) // BLOCK_BYTES - 1
    if len(data) % BLOCK_BYTES or last <= 2 * _FIRST_USABLE:
        raise FormatError(f"GPT: a disk of {len(data)} bytes")
    if data[510:512] != _MBR_SIGNATURE or data[450] != _PROTECTIVE:
        raise FormatError("GPT: the first block is no protective MBR")
    first, table = _read(data, 1, last)
    backup, copy = _read(data, last, last)
    if copy != table or backup.disk_guid != first.disk_guid or backup.my_lba != first.alternate_lba:
        raise FormatError("GPT: the backup says something else")
    found = []
    for start in range(0, len(table), _ENTRY_BYTES):
        raw = table[start : start + _ENTRY_BYTES]
        if any(raw):
            found.append(_placed(_Entry.parse(raw), first))
    inside = sorted((p.start, p.start + p.size) for p in found)
    if any(end > begin for (_, end), (begin, _) in itertools.pairwise(inside)):
        raise FormatError("GPT: partitions lie over one another")
    return tuple(found)


def _entry(partition: Partition, *, start: int, end: int) -> _Entry:
    name = partition.name.encode("utf-16-le")
    if len(partition.name) > _NAME_CHARACTERS or not partition.content:
        raise FormatError(f"GPT: partition {partition.name[:60]!r}: a long name, or no content")
    return _Entry(
        partition_type_guid=partition.type.bytes_le,
        unique_partition_guid=partition.guid.bytes_le,
        starting_lba=start // BLOCK_BYTES,
        ending_lba=end // BLOCK_BYTES - 1,
        attributes=0 if partition.type == EFI_SYSTEM else _READ_ONLY,
        partition_name=name.ljust(2 * _NAME_CHARACTERS, b"\0"),
    )


def _protective_mbr(last: int) -> bytes:
    entry = bytes((0, 0, 2, 0, _PROTECTIVE, 0xFF, 0xFF, 0xFF))
    entry += (1).to_bytes(4, "little") + min(last, 0xFFFFFFFF).to_bytes(4, "little")
    return (bytes(446) + entry).ljust(510, b"\0") + _MBR_SIGNATURE


def _read(data: bytes, lba: int, last: int) -> tuple[_Header, bytes]:
    header = _Header.parse(data[lba * BLOCK_BYTES : lba * BLOCK_BYTES + _Header.SIZE])
    for field, wanted in _FIXED.items():
        if (value := getattr(header, field)) != wanted:
            raise FormatError(f"GPT: {field} at block {lba} is {value!r}, want {wanted!r}")
    if header != header.sealed() or header.my_lba != lba:
        raise FormatError(f"GPT: the header at block {lba} is not whole")
    where = header.partition_entry_lba
    if not (1 < where <= last and where + _TABLE_BLOCKS <= last + 1):
        raise FormatError(f"GPT: entries at block {where}")
    table = data[where * BLOCK_BYTES : (where + _TABLE_BLOCKS) * BLOCK_BYTES]
    if zlib.crc32(table) != header.partition_entry_array_crc32:
        raise FormatError(f"GPT: the entries at block {where} are not whole")
    if not _FIRST_USABLE <= header.first_usable_lba <= header.last_usable_lba < last:
        raise FormatError("GPT: usable blocks outside the disk")
    return header, table


def _placed(entry: _Entry, header: _Header) -> PlacedPartition:
    first, last = entry.starting_lba, entry.ending_lba
    if not header.first_usable_lba <= first <= last <= header.last_usable_lba:
        raise FormatError(f"GPT: a partition from block {first} to {last}")
    try:
        name = entry.partition_name.decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError:
        raise FormatError("GPT: a partition's name is not UTF-16") from None
    return PlacedPartition(
        type=uuid.UUID(bytes_le=entry.partition_type_guid),
        guid=uuid.UUID(bytes_le=entry.unique_partition_guid),
        name=name,
        start=first * BLOCK_BYTES,
        size=(last - first + 1) * BLOCK_BYTES,
    )
