"""What an OVMF image asks to be measured besides itself: the tables at its end.

Source: EDK2 OvmfPkg/ResetVector: the GUIDed table that ends 32 bytes before the image's end, and
OvmfSevMetadata (signature "ASEV", version 1). Nothing here is trusted; the launch measurement that
is predicted from it is compared with a report.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Self

from constellation.base.binary import Reader
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PAGE_BYTES", "Firmware", "Section", "SectionKind"]

PAGE_BYTES = 4096

_FOUR_GIB = 1 << 32
_AFTER_TABLE_BYTES = 32  # the reset vector
_MAX_BYTES = 64 * 1024 * 1024
_HEADER_BYTES = 2 + 16
_MAX_SECTIONS = 64
_MAX_SECTION_BYTES = 64 * 1024 * 1024
_METADATA_VERSION = 1

_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_HASH_TABLE = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_RESET_BLOCK = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
_METADATA = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc")


class SectionKind(IntEnum):
    """What a range of guest memory is at launch (OvmfSevMetadata)."""

    ZERO = 1
    SECRETS = 2
    CPUID = 3
    CALLING_AREA = 4  # of an SVSM
    KERNEL_HASHES = 0x10


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A range of guest memory; `address` and `size_bytes` are whole pages."""

    kind: SectionKind
    address: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """An OVMF image and its tables.

    `reset_address` is where processors but the first start; `hash_table_address` where QEMU puts
    the digests of kernel, initrd and command line. Both are None if the image has no such entry.
    """

    data: bytes
    sections: tuple[Section, ...]
    reset_address: int | None
    hash_table_address: int | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an image (the code part, or code and variables in one), at most 64 MiB.

        Raises:
            FormatError: not whole pages, no table at the end, or a table that is not well formed.
        """
        if not data or len(data) % PAGE_BYTES or len(data) > _MAX_BYTES:
            raise FormatError(f"OVMF: {len(data)} bytes, want whole pages up to {_MAX_BYTES}")
        table = _table(data)
        return cls(
            data=data,
            sections=_sections(data, table),
            reset_address=_address(table, _RESET_BLOCK),
            hash_table_address=_address(table, _HASH_TABLE) or None,
        )

    @property
    def address(self) -> int:
        """Where the image lies in guest memory: it ends at 4 GiB."""
        return _FOUR_GIB - len(self.data)


def _table(data: bytes) -> Mapping[uuid.UUID, bytes]:
    """Read the GUIDed table, which is written backwards: content, then size and GUID."""
    end = len(data) - _AFTER_TABLE_BYTES
    guid, start = _entry(data, end, 0)
    if guid != _FOOTER:
        raise FormatError(f"OVMF: no table at {end - _HEADER_BYTES:#x}: found {guid}")
    found: dict[uuid.UUID, bytes] = {}
    end -= _HEADER_BYTES
    while end > start:
        guid, first = _entry(data, end, start)
        if guid in found:
            raise FormatError(f"OVMF: table entry {guid} occurs twice")
        found[guid] = data[first : end - _HEADER_BYTES]
        end = first
    return found


def _entry(data: bytes, end: int, start: int) -> tuple[uuid.UUID, int]:
    """Read the entry that ends at `end`; give its GUID and where it begins."""
    header = end - _HEADER_BYTES
    if header < start:
        raise FormatError(f"OVMF: table entry before {end:#x} is cut off")
    size = int.from_bytes(data[header : header + 2], "little")
    if not _HEADER_BYTES <= size <= end - start:
        raise FormatError(f"OVMF: table entry at {header:#x} has {size} bytes")
    return uuid.UUID(bytes_le=data[header + 2 : end]), end - size


def _address(table: Mapping[uuid.UUID, bytes], guid: uuid.UUID) -> int | None:
    if guid not in table:
        return None
    return Reader(table[guid], what=f"OVMF: table entry {guid}", order="little").number(
        4, "address"
    )


def _sections(data: bytes, table: Mapping[uuid.UUID, bytes]) -> tuple[Section, ...]:
    from_end = _address(table, _METADATA)
    if from_end is None:
        return ()
    if from_end > len(data):
        raise FormatError(f"OVMF: SEV metadata {from_end:#x} before the end is not inside")
    read = Reader(data[len(data) - from_end :], what="OVMF: SEV metadata", order="little")
    signature, _size = read.take(4, "signature"), read.number(4, "size")
    version, count = read.number(4, "version"), read.number(4, "number of sections")
    if signature != b"ASEV" or version != _METADATA_VERSION or count > _MAX_SECTIONS:
        raise FormatError(f"{read.what}: {signature!r} version {version} with {count} sections")
    return tuple(_section(read) for _ in range(count))


def _section(read: Reader) -> Section:
    address, size, number = (read.number(4, f) for f in ("address", "size", "kind"))
    try:
        kind = SectionKind(number)
    except ValueError:
        raise FormatError(f"{read.what}: unknown kind of section {number:#x}") from None
    if address % PAGE_BYTES or size % PAGE_BYTES or size > _MAX_SECTION_BYTES:
        raise FormatError(f"{read.what}: section {address:#x} of {size:#x} bytes: want whole pages")
    return Section(kind=kind, address=address, size_bytes=size)
