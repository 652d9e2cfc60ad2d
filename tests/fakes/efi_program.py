"""A small EFI program in memory: headers and sections as a linker lays them, nothing to run."""

from __future__ import annotations

from constellation.image import pe

__all__ = ["efi_program", "unified_image"]

_FILE_ALIGNMENT, _SECTION_ALIGNMENT, _HEADERS = 512, 4096, 1536


def efi_program(
    sections: tuple[tuple[str, bytes], ...] = ((".text", b"code"), (".sbat", b"sbat,1\n")),
    *,
    certificates: bytes = b"",
) -> bytes:
    """Give a PE32+ program for x86-64 with these sections; signed if there are certificates."""
    out = bytearray(_HEADERS)
    out[:2], out[0x3C:0x40] = b"MZ", (64).to_bytes(4, "little")
    out[64:88] = (
        b"PE\0\0" + b"\x64\x86" + len(sections).to_bytes(2, "little")
        + bytes(12) + (240).to_bytes(2, "little") + b"\x06\x02"
    )  # fmt: skip
    optional = 88
    for offset, size, value in (
        (0, 2, 0x20B), (32, 4, _SECTION_ALIGNMENT), (36, 4, _FILE_ALIGNMENT), (60, 4, _HEADERS),
        (64, 4, 0x1234), (108, 4, 16),
    ):  # fmt: skip
        out[optional + offset : optional + offset + size] = value.to_bytes(size, "little")
    address = _SECTION_ALIGNMENT
    for index, (name, content) in enumerate(sections):
        padded = content + bytes(-len(content) % _FILE_ALIGNMENT)
        header = pe.Section(
            name=name.encode().ljust(8, b"\0"), virtual_size=len(content), virtual_address=address,
            size_of_raw_data=len(padded), pointer_to_raw_data=len(out), pointer_to_relocations=0,
            pointer_to_linenumbers=0, number_of_relocations=0, number_of_linenumbers=0,
            characteristics=0x40000040,
        )  # fmt: skip
        place = optional + 240 + 40 * index
        out[place : place + 40] = header.pack()
        out += padded
        address += len(content) + -len(content) % _SECTION_ALIGNMENT
    if certificates:
        entry = optional + 112 + 8 * 4
        out[entry : entry + 4] = len(out).to_bytes(4, "little")
        out[entry + 4 : entry + 8] = len(certificates).to_bytes(4, "little")
        out += certificates
    return bytes(out)


def unified_image(
    *, command_line: bytes = b"a=1 b", initrd: bytes = b"initrd", more: tuple[str, ...] = ()
) -> bytes:
    """Give a unified kernel image of small parts."""
    sections = (
        (".osrel", b"ID=x\n"),
        (".cmdline", command_line),
        (".initrd", initrd),
        *((name, b"?") for name in more),
        (".linux", efi_program(((".text", b"kernel"),), certificates=b"c" * 16)),
    )
    return pe.add_sections(pe.parse(efi_program()), sections)
