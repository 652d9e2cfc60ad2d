"""What will the registers of a VM read after it started a unified kernel image? Predicted (pure).

From the image's bytes alone, for a firmware that boots it straight from its disk:

PCR 4: "Calling EFI Application from Boot Option", the separator, the unified image, and the kernel
       in it, which systemd-stub has loaded by the firmware
PCR 9: the kernel's own: its command line as it got it, then its initial RAM disk as it got it, to
       which systemd-stub has added one file with the os-release
PCR 11: systemd-stub's: name and content of each section that it uses, in its order

What another register holds is the firmware's and its settings' (PCR 0 to 3, 5 to 7), or must be
zero (12 and 13): `attestation.platforms.vtpm` says why each is not compared, or is.
Sources: TCG PC Client Platform Firmware Profile 1.06, sections 3.3.4.5 and table 27; systemd 257,
systemd-stub(7) and src/fundamental/uki.c and src/boot/stub.c, cpio.c (sections,
initial RAM disks); Linux 6.12,
drivers/firmware/efi/libstub/efi-stub-helper.c (efi_measure_tagged_event).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError
from constellation.image import pe
from constellation.image.initrd import pack_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.image.pe import Program

__all__ = ["REGISTERS", "measured", "predict"]

REGISTERS = (4, 9, 11)
"""What a node image decides on its own."""

_CALLING = b"Calling EFI Application from Boot Option"
_SEPARATOR = bytes(4)
# systemd-stub's order; .pcrsig is not measured, by its nature
_SECTIONS = (
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
    ".pcrpkey", ".profile", ".dtbauto", ".hwids",
)  # fmt: skip
_NEEDED = (".linux", ".osrel", ".cmdline", ".initrd")
# one image, one boot: what would make it depend on the machine that it runs on
_CHOOSING = (".ucode", ".splash", ".dtb", ".profile", ".dtbauto", ".hwids", ".efifw")
# what would be in further files that systemd-stub adds to the initial RAM disk
_ADDING = (".pcrsig", ".pcrpkey")
# the end of its archive: the size of the name is written with a capital digit there
_END = (
    b"070701"
    + b"0" * 32
    + b"00000001"
    + b"0" * 48
    + b"0000000B"
    + b"0" * 8
    + b"TRAILER!!!"
    + bytes(4)
)
_FOLDER, _READABLE_FOLDER, _READABLE_FILE = ".extra", 0o40555, 0o100444


def predict(unified: bytes, *, bank: Alg = Alg.SHA256) -> dict[int, tuple[bytes, ...]]:
    """Give PCR -> the one acceptable value of a bank for a unified image's bytes.

    Raises:
        FormatError: not a unified image, or one whose boot depends on the machine.
    """
    return {
        number: (pcr.replay(bank, digests, pcr=number),)
        for number, digests in measured(unified, bank=bank).items()
    }


def measured(unified: bytes, *, bank: Alg = Alg.SHA256) -> dict[int, tuple[bytes, ...]]:
    """Give PCR -> the digests of a bank that it is extended by, in order.

    Raises:
        FormatError: see `predict`.
    """
    program = pe.parse(unified)
    found = {name: program.content(name) for name in (*_SECTIONS, *_CHOOSING, *_ADDING)}
    if missing := [name for name in _NEEDED if not found[name]]:
        raise FormatError(f"unified image: no section {missing[0]}")
    if strange := [name for name in _CHOOSING if found[name] is not None]:
        raise FormatError(f"unified image: section {strange[0]} is chosen by the machine")
    if strange := [name for name in _ADDING if found[name] is not None]:
        raise FormatError(f"unified image: section {strange[0]} is added to what is measured")
    present = {name: content for name in _SECTIONS if (content := found[name]) is not None}
    return {
        4: _applications(program, pe.parse(present[".linux"]), bank),
        9: tuple(
            pcr.digest_of(bank, data)
            for data in (_load_options(present[".cmdline"]), _initrd(present))
        ),
        11: tuple(
            pcr.digest_of(bank, data)
            for name, content in present.items()
            for data in (name.encode() + b"\0", content)
        ),
    }


def _applications(unified: Program, kernel: Program, bank: Alg) -> tuple[bytes, ...]:
    algorithm = bank.name.lower()
    return (
        pcr.digest_of(bank, _CALLING),
        pcr.digest_of(bank, _SEPARATOR),
        pe.authenticode_digest(unified, algorithm=algorithm),
        pe.authenticode_digest(kernel, algorithm=algorithm),
    )


def _initrd(sections: Mapping[str, bytes]) -> bytes:
    own = sections[".initrd"]
    added = pack_record(_FOLDER, number=1, mode=_READABLE_FOLDER, data=b"") + pack_record(
        f"{_FOLDER}/os-release", number=2, mode=_READABLE_FILE, data=sections[".osrel"]
    )
    return own + bytes(-len(own) % 4) + added + _END


def _load_options(command_line: bytes) -> bytes:
    # UEFI 2.10, section 9.1: LoadOptions; a string there is UTF-16 and ends with NUL
    try:
        text = command_line.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("unified image: the command line is not ASCII") from None
    if not text.isprintable() or text != " ".join(text.split()):
        # systemd-stub would change it before the kernel measures it
        raise FormatError("unified image: the command line has more than words and single spaces")
    return f"{text}\0".encode("utf-16-le")
