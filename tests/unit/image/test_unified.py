"""What a VM's registers will read is a function of the unified image's bytes."""

from __future__ import annotations

import hashlib

import pytest

from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError
from constellation.image import pe
from constellation.image.initrd import pack_record
from constellation.image.measure.unified import REGISTERS, measured, predict
from tests.fakes.efi_program import efi_program, unified_image


@pytest.mark.parametrize("algorithm", ["sha256", "sha384"])
def test_each_register_has_the_digests_of_its_specification_in_order(algorithm: str) -> None:
    bank = {"sha256": Alg.SHA256, "sha384": Alg.SHA384}[algorithm]

    def sha(data: bytes) -> bytes:
        return hashlib.new(algorithm, data).digest()

    image = unified_image()
    kernel = efi_program(((".text", b"kernel"),), certificates=b"c" * 16)
    digests = measured(image, bank=bank)
    given = b"initrd\0\0" + b"".join(
        pack_record(name, number=number, mode=mode, data=data)
        for number, (name, mode, data) in enumerate(
            ((".extra", 0o40555, b""), (".extra/os-release", 0o100444, b"ID=x\n")), 1
        )
    )
    given += pack_record("TRAILER!!!", number=0, mode=0, data=b"").replace(b"0000000b", b"0000000B")
    assert digests[4] == (
        sha(b"Calling EFI Application from Boot Option"),
        sha(bytes(4)),
        pe.authenticode_digest(pe.parse(image), algorithm=algorithm),
        pe.authenticode_digest(pe.parse(kernel), algorithm=algorithm),
    )
    assert digests[9] == (sha("a=1 b\0".encode("utf-16-le")), sha(given))
    sections = (
        (b".linux\0", kernel), (b".osrel\0", b"ID=x\n"), (b".cmdline\0", b"a=1 b"),
        (b".initrd\0", b"initrd"), (b".sbat\0", b"sbat,1\n"),
    )  # fmt: skip
    assert digests[11] == tuple(sha(part) for section in sections for part in section)
    assert predict(image, bank=bank) == {
        number: (pcr.replay(bank, digests[number], pcr=number),) for number in REGISTERS
    }


def test_another_command_line_changes_all_three_another_initrd_too() -> None:
    values = predict(unified_image())
    for other in (unified_image(command_line=b"a=1 c"), unified_image(initrd=b"other")):
        changed = predict(other)
        assert all(changed[number] != values[number] for number in REGISTERS)


@pytest.mark.parametrize("section", [".ucode", ".dtb", ".dtbauto", ".hwids", ".profile", ".splash"])
def test_an_image_whose_boot_depends_on_the_machine_has_no_values(section: str) -> None:
    with pytest.raises(FormatError, match="chosen by the machine"):
        predict(unified_image(more=(section,)))


@pytest.mark.parametrize("section", [".pcrsig", ".pcrpkey"])
def test_an_image_to_whose_initrd_the_stub_adds_more_has_no_values(section: str) -> None:
    with pytest.raises(FormatError, match="added to what is measured"):
        predict(unified_image(more=(section,)))


@pytest.mark.parametrize("line", [b"a  b", b"a ", b"a\tb", b"a\n", b"\xc3\xa4"])
def test_a_command_line_that_the_stub_would_change_has_no_values(line: bytes) -> None:
    with pytest.raises(FormatError, match="command line"):
        predict(unified_image(command_line=line))


def test_a_program_that_is_no_unified_image_has_no_values() -> None:
    with pytest.raises(FormatError, match=r"no section \.linux"):
        predict(efi_program())
