"""What is in an EFI program, what does firmware measure of it, how does it get sections? (pure).

Sources: Microsoft, "PE Format" (headers, section table); Microsoft, "Windows Authenticode Portable
Executable Signature Format", "Calculating the PE image hash"; UEFI 2.10, section 32.2.2 (the same
hash); TCG PC Client Platform Firmware Profile 1.06, table 27 (EV_EFI_BOOT_SERVICES_APPLICATION
covers it). Only PE32+ for x86-64. Nothing that is read here is authenticated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from constellation.base.binary import Layout, at
from constellation.base.errors import FormatError

__all__ = ["Program", "Section", "add_sections", "authenticode_digest", "parse"]

_PE_OFFSET_AT = 0x3C
_MACHINE_X86_64 = 0x8664
_PE32_PLUS = 0x20B
_FIXED_OPTIONAL_BYTES = 112
_DIRECTORY_BYTES = 8
_CERTIFICATES = 4  # the certificate table is the fifth directory
_SECTION_BYTES = 40
_NAME_BYTES = 8
_MAX_SECTIONS = 96
_MAX_DIRECTORIES = 16
_READABLE_DATA = 0x40000040  # IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
_MAX_RVA = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coff(Layout):
    """PE Format, "COFF File Header"; the signature before it included."""

    SIZE: ClassVar[int] = 24
    signature: bytes = at(0, 4)
    machine: int = at(4, 2, integer=True)
    number_of_sections: int = at(6, 2, integer=True)
    time_date_stamp: int = at(8, 4, integer=True)
    pointer_to_symbol_table: int = at(12, 4, integer=True)
    number_of_symbols: int = at(16, 4, integer=True)
    size_of_optional_header: int = at(20, 2, integer=True)
    characteristics: int = at(22, 2, integer=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Layout):
    """PE Format, "Section Table"."""

    SIZE: ClassVar[int] = _SECTION_BYTES
    name: bytes = at(0, 8)
    virtual_size: int = at(8, 4, integer=True)
    virtual_address: int = at(12, 4, integer=True)
    size_of_raw_data: int = at(16, 4, integer=True)
    pointer_to_raw_data: int = at(20, 4, integer=True)
    pointer_to_relocations: int = at(24, 4, integer=True)
    pointer_to_linenumbers: int = at(28, 4, integer=True)
    number_of_relocations: int = at(32, 2, integer=True)
    number_of_linenumbers: int = at(34, 2, integer=True)
    characteristics: int = at(36, 4, integer=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A parsed program: its bytes, its sections in the table's order, and where its headers are.

    `optional` and `table` are offsets (bytes) of the optional header and the section table;
    `headers_size` is SizeOfHeaders; `certificates` offset and size of the certificate table.
    """

    data: bytes
    sections: tuple[Section, ...]
    optional: int
    table: int
    section_alignment: int
    file_alignment: int
    headers_size: int
    certificates_entry: int
    certificates: tuple[int, int]

    def content(self, name: str) -> bytes | None:
        """Give a section as it lies in memory (VirtualSize bytes); None if there is none.

        Raises:
            FormatError: there are two.
        """
        found = [s for s in self.sections if s.name.rstrip(b"\0") == name.encode()]
        if len(found) > 1:
            raise FormatError(f"PE: {len(found)} sections {name}")
        if not found:
            return None
        section = found[0]
        start, size = section.pointer_to_raw_data, section.size_of_raw_data
        raw = self.data[start : start + min(size, section.virtual_size)]
        return raw.ljust(section.virtual_size, b"\0")


def parse(data: bytes) -> Program:
    """Read a program's headers; all of its sections lie inside it, none over another.

    Raises:
        FormatError: not a PE32+ program for x86-64.
    """
    start = int.from_bytes(data[_PE_OFFSET_AT : _PE_OFFSET_AT + 4], "little")
    if data[:2] != b"MZ":
        raise FormatError("PE: no MZ at the beginning")
    coff = _Coff.parse(data[start : start + _Coff.SIZE])
    optional = start + _Coff.SIZE
    magic, directories = _number(data, optional, 2), _number(data, optional + 108, 4)
    if (coff.signature, coff.machine, magic) != (b"PE\0\0", _MACHINE_X86_64, _PE32_PLUS):
        raise FormatError("PE: not a PE32+ program for x86-64")
    size = _FIXED_OPTIONAL_BYTES + _DIRECTORY_BYTES * directories
    if not _CERTIFICATES < directories <= _MAX_DIRECTORIES or size > coff.size_of_optional_header:
        raise FormatError(f"PE: {directories} directories")
    section_alignment = _number(data, optional + 32, 4)
    file_alignment = _number(data, optional + 36, 4)
    headers_size = _number(data, optional + 60, 4)
    table = optional + coff.size_of_optional_header
    end = table + _SECTION_BYTES * coff.number_of_sections
    if not 0 < coff.number_of_sections <= _MAX_SECTIONS or not end <= headers_size <= len(data):
        raise FormatError(f"PE: {coff.number_of_sections} sections, headers to {headers_size}")
    if not _power(section_alignment) or not _power(file_alignment):
        raise FormatError(f"PE: alignments {section_alignment} and {file_alignment}")
    sections = tuple(
        Section.parse(data[o : o + _SECTION_BYTES]) for o in range(table, end, _SECTION_BYTES)
    )
    entry = optional + _FIXED_OPTIONAL_BYTES + _DIRECTORY_BYTES * _CERTIFICATES
    certificates = (_number(data, entry, 4), _number(data, entry + 4, 4))
    _check_places(data, sections, headers_size=headers_size, certificates=certificates)
    return Program(
        data=data,
        sections=sections,
        optional=optional,
        table=table,
        section_alignment=section_alignment,
        file_alignment=file_alignment,
        headers_size=headers_size,
        certificates_entry=entry,
        certificates=certificates,
    )


def authenticode_digest(program: Program, *, algorithm: str = "sha256") -> bytes:
    """Give the digest that firmware measures when it loads the program, by `hashlib`'s name.

    Left out are the checksum, the directory entry of the certificates, and the certificates.
    """
    data, checksum = program.data, program.optional + 64
    found = hashlib.new(algorithm, data[:checksum])
    found.update(data[checksum + 4 : program.certificates_entry])
    found.update(data[program.certificates_entry + _DIRECTORY_BYTES : program.headers_size])
    hashed = program.headers_size
    for section in sorted(program.sections, key=lambda s: s.pointer_to_raw_data):
        if section.size_of_raw_data:
            end = section.pointer_to_raw_data + section.size_of_raw_data
            found.update(data[section.pointer_to_raw_data : end])
            hashed += section.size_of_raw_data
    found.update(data[hashed : len(data) - program.certificates[1]])
    return found.digest()


def add_sections(stub: Program, contents: tuple[tuple[str, bytes], ...]) -> bytes:
    """Give the program with more sections at its end, readable data, in this order.

    Raises:
        FormatError: it is signed or has bytes after its sections, no room for the table, a name is
            too long or there already, or a section is empty.
    """
    _check_room(stub, contents)
    out = bytearray(stub.data)
    address = max(s.virtual_address + s.virtual_size for s in stub.sections)
    for index, (name, content) in enumerate(contents, len(stub.sections)):
        address += -address % stub.section_alignment
        section = Section(
            name=name.encode().ljust(8, b"\0"),
            virtual_size=len(content),
            virtual_address=address,
            size_of_raw_data=len(content) + -len(content) % stub.file_alignment,
            pointer_to_raw_data=len(out),
            pointer_to_relocations=0,
            pointer_to_linenumbers=0,
            number_of_relocations=0,
            number_of_linenumbers=0,
            characteristics=_READABLE_DATA,
        )
        address += len(content)
        if address >= _MAX_RVA:
            raise FormatError("PE: sections of 4 GiB and more")
        place = stub.table + _SECTION_BYTES * index
        out[place : place + _SECTION_BYTES] = section.pack()
        out += content + bytes(section.size_of_raw_data - len(content))
    added = sum(len(c) + -len(c) % stub.file_alignment for _, c in contents)
    initialized = _number(stub.data, stub.optional + 8, 4) + added
    count = stub.optional - _Coff.SIZE + 6
    image_size = address + -address % stub.section_alignment
    for offset, size, value in (
        (count, 2, len(stub.sections) + len(contents)),
        (stub.optional + 8, 4, initialized),  # SizeOfInitializedData
        (stub.optional + 56, 4, image_size),  # SizeOfImage
        (stub.optional + 64, 4, 0),  # CheckSum: firmware does not look
    ):
        out[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(out)


def _check_room(stub: Program, contents: tuple[tuple[str, bytes], ...]) -> None:
    end = max(s.pointer_to_raw_data + s.size_of_raw_data for s in stub.sections)
    if stub.certificates != (0, 0) or end != len(stub.data) or end % stub.file_alignment:
        raise FormatError("PE: signed, or there are bytes after the last section")
    table_end = stub.table + _SECTION_BYTES * (len(stub.sections) + len(contents))
    if table_end > min(stub.headers_size, *(s.pointer_to_raw_data for s in stub.sections)):
        raise FormatError("PE: no room for more sections")
    names = [s.name.rstrip(b"\0").decode("ascii", "replace") for s in stub.sections]
    for name, content in contents:
        if name in names or len(name.encode()) > _NAME_BYTES or not content:
            raise FormatError(f"PE: section {name[:20]!r}: there already, too long, or empty")
        names.append(name)


def _check_places(
    data: bytes, sections: tuple[Section, ...], *, headers_size: int, certificates: tuple[int, int]
) -> None:
    end = headers_size
    for section in sorted(sections, key=lambda s: s.pointer_to_raw_data):
        if not section.size_of_raw_data:
            continue
        if section.pointer_to_raw_data < end:
            raise FormatError(f"PE: section {section.name!r} lies over what is before it")
        end = section.pointer_to_raw_data + section.size_of_raw_data
    start, size = certificates
    if end > len(data) or (certificates != (0, 0) and (start < end or start + size != len(data))):
        raise FormatError("PE: sections or certificates end outside the file")


def _number(data: bytes, offset: int, size: int) -> int:
    if offset + size > len(data):
        raise FormatError(f"PE: the headers end at {len(data):#x}")
    return int.from_bytes(data[offset : offset + size], "little")


def _power(number: int) -> bool:
    return number > 0 and not number & (number - 1)
