"""Which MRTD a firmware image gives: the measurement of a TD before its first instruction.

A TD firmware names its parts in a table: where each lies in the file, where in memory, and whether
its bytes are measured. The host adds them page by page; the TDX module extends MRTD with each
added page's address, and with address and content of each 256-byte chunk that is measured.
Sources: "Intel TDX Virtual Firmware Design Guide", revision 1.01, section 11 (metadata);
"Intel TDX Module 1.5 ABI specification", TDH.MEM.PAGE.ADD and TDH.MR.EXTEND (what is hashed).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum

from constellation.base.binary import Reader
from constellation.base.errors import FormatError

__all__ = ["Order", "Section", "SectionType", "parse_metadata", "predict_mr_td"]

_MAX_FIRMWARE_BYTES = 64 * 1024 * 1024
_MAX_SECTIONS = 64
_PAGE, _CHUNK = 4096, 256
_MAX_SECTION_BYTES = 256 * 1024 * 1024
_TABLE_END = 32  # bytes between the end of the table and the end of the file (reset vector)
_FOOTER = bytes.fromhex("de82b596b21ff745baeaa366c55a082d")  # 96b582de-1fb2-45f7-baea-a366c55a082d
_TDX_OFFSET = bytes.fromhex(
    "35657ae44a989847865e4685a7bf8ec2"
)  # e47a6535-984a-4798-865e-4685a7bf8ec2
_SIGNATURE = b"TDVF"
_VERSION = 1
_EXTENDED = 1  # section attribute MR.EXTEND
_AUGMENTED = 2  # section attribute PAGE.AUG: given later, never measured


class Order(IntEnum):
    """How a host adds a section: KVM measures each page at once, older hosts after the section."""

    PAGE_BY_PAGE = 1
    ADD_THEN_EXTEND = 2


class SectionType(IntEnum):
    """TDVF_SECTION type (design guide, table 11-3)."""

    BFV = 0
    CFV = 1
    TD_HOB = 2
    TEMP_MEM = 3
    PERM_MEM = 4
    PAYLOAD = 5
    PAYLOAD_PARAM = 6
    TD_INFO = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the firmware; sizes and offsets in bytes."""

    data_offset: int
    raw_data_size: int
    memory_address: int
    memory_data_size: int
    type: SectionType
    attributes: int


def parse_metadata(firmware: bytes) -> tuple[Section, ...]:
    """Read the table of parts of a TD firmware (OVMF with TDX, or td-shim).

    Raises:
        FormatError: no table, another version, a part outside the file or not whole pages.
    """
    if len(firmware) > _MAX_FIRMWARE_BYTES:
        raise FormatError(
            f"TD firmware: {len(firmware)} bytes, at most {_MAX_FIRMWARE_BYTES} are read"
        )
    offset = _metadata_offset(firmware)
    read = Reader(firmware[offset:], what="TDVF metadata", order="little")
    signature, length = read.take(4, "signature"), read.number(4, "length")
    version, count = read.number(4, "version"), read.number(4, "number of sections")
    if signature != _SIGNATURE or version != _VERSION:
        raise FormatError(f"TDVF metadata: {signature!r} of version {version}, want TDVF of 1")
    if not 0 < count <= _MAX_SECTIONS or length != 16 + 32 * count:
        raise FormatError(f"TDVF metadata: {count} sections in {length} bytes")
    return tuple(_section(read, len(firmware)) for _ in range(count))


def predict_mr_td(firmware: bytes, *, order: Order) -> bytes:
    """Give the MRTD (48 bytes) of a TD that starts with this firmware.

    Raises:
        FormatError: see `parse_metadata`.
    """
    digest = hashlib.sha384()
    for section in parse_metadata(firmware):
        if section.attributes & _AUGMENTED:
            continue
        end = section.data_offset + section.raw_data_size
        content = firmware[section.data_offset : end].ljust(section.memory_data_size, b"\0")
        pages = range(0, section.memory_data_size, _PAGE)
        measured = bool(section.attributes & _EXTENDED)
        for page in pages:
            address = section.memory_address + page
            digest.update(_command(b"MEM.PAGE.ADD", address))
            if measured and order is Order.PAGE_BY_PAGE:
                digest.update(_extended_page(content[page : page + _PAGE], address))
        if measured and order is Order.ADD_THEN_EXTEND:
            for page in pages:
                address = section.memory_address + page
                digest.update(_extended_page(content[page : page + _PAGE], address))
    return digest.digest()


def _command(name: bytes, address: int) -> bytes:
    # a 128-byte buffer: name padded to 16, address, zeros
    return (name.ljust(16, b"\0") + address.to_bytes(8, "little")).ljust(128, b"\0")


def _extended_page(page: bytes, address: int) -> bytes:
    return b"".join(
        _command(b"MR.EXTEND", address + i) + page[i : i + _CHUNK] for i in range(0, _PAGE, _CHUNK)
    )


def _metadata_offset(firmware: bytes) -> int:
    """Walk the GUIDed table at the file's end, from its last entry to its first."""
    end = len(firmware) - _TABLE_END
    footer = firmware[end - 16 : end] if end >= 18 else b""  # noqa: PLR2004 - size and GUID
    if footer != _FOOTER:
        raise FormatError("TD firmware: no table of GUIDs at its end")
    total = int.from_bytes(firmware[end - 18 : end - 16], "little")
    first, position = end - total, end - 18
    if first < 0:
        raise FormatError(f"TD firmware: table of {total} bytes in {len(firmware)}")
    while position - 18 >= first:
        guid = firmware[position - 16 : position]
        size = int.from_bytes(firmware[position - 18 : position - 16], "little")
        if size < 18 or position - size < first:  # noqa: PLR2004 - size and GUID
            raise FormatError(f"TD firmware: table entry of {size} bytes at {position:#x}")
        if guid == _TDX_OFFSET:
            if size != 22:  # noqa: PLR2004 - and an offset
                raise FormatError(f"TD firmware: TDX entry of {size} bytes, want 22")
            back = int.from_bytes(firmware[position - 22 : position - 18], "little")
            if not 0 < back <= len(firmware):
                raise FormatError(f"TD firmware: metadata {back} bytes before the file's end")
            return len(firmware) - back
        position -= size
    raise FormatError("TD firmware: its table names no TDX metadata")


def _section(read: Reader, firmware_size: int) -> Section:
    offset, raw = read.number(4, "DataOffset"), read.number(4, "RawDataSize")
    address, size = read.number(8, "MemoryAddress"), read.number(8, "MemoryDataSize")
    kind, attributes = read.number(4, "Type"), read.number(4, "Attributes")
    what = f"TDVF section at {address:#x}"
    if kind not in tuple(SectionType):
        raise FormatError(f"{what}: type {kind}")
    if offset + raw > firmware_size or raw > size or size > _MAX_SECTION_BYTES:
        raise FormatError(f"{what}: {raw} bytes at {offset:#x} of the file, {size} in memory")
    if address % _PAGE or size % _PAGE or address + size > 1 << 52:
        raise FormatError(f"{what}: {size} bytes, want whole pages")
    if attributes & ~(_EXTENDED | _AUGMENTED) or attributes == _EXTENDED | _AUGMENTED:
        raise FormatError(f"{what}: attributes {attributes:#x}")
    return Section(
        data_offset=offset,
        raw_data_size=raw,
        memory_address=address,
        memory_data_size=size,
        type=SectionType(kind),
        attributes=attributes,
    )
