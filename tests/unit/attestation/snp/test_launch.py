"""Predicted launch measurements, against the tool of the same formula that others use."""

from __future__ import annotations

import hashlib
import itertools
import struct
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sevsnpmeasure import guest, vcpu_types  # type: ignore[import-untyped] # has no types
from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped] # has no types
from sevsnpmeasure.vmm_types import VMMType  # type: ignore[import-untyped] # has no types

from constellation.attestation.snp.firmware import Firmware
from constellation.attestation.snp.launch import (
    EC2,
    GCE,
    QEMU,
    DirectBoot,
    cpuid_signature,
    predict,
)
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

MILAN = cpuid_signature(family=0x19, model=1, stepping=1)
SECTIONS = (
    (0x800000, 0x9000, 1), (0x80A000, 0x3000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4), (0x810000, 0x1000, 0x10), (0x811000, 0xF000, 1),
)  # fmt: skip


def ovmf(
    *,
    sections: tuple[tuple[int, int, int], ...] = SECTIONS,
    reset: int = 0x80B004,
    hashes: int = 0x810C00,
) -> bytes:
    """Build an image with the tables that EDK2's OvmfPkg/AmdSev has."""
    size = 0x20000
    data = bytearray(hashlib.shake_256(b"firmware").digest(size))
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *s) for s in sections)
    at = size - 0x1000
    data[at : at + len(metadata)] = metadata
    table = b""
    for guid, value in (
        ("dc886566-984a-4798-a75e-5585a7bf67cc", size - at),
        ("00f771de-1a7e-4fcb-890e-68c77e2fb44e", reset),
        ("7255371f-3a3b-4b04-927b-1da6efa8d454", hashes),
    ):
        entry = struct.pack("<I", value) + (b"" if value == size - at else bytes(4))
        table += entry + struct.pack("<H", len(entry) + 18) + uuid.UUID(guid).bytes_le
    footer = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    table += struct.pack("<H", len(table) + 18) + footer
    data[size - 32 - len(table) : size - 32] = table
    return bytes(data)


@pytest.mark.parametrize(
    ("hypervisor", "theirs"), [(QEMU, VMMType.QEMU), (EC2, VMMType.ec2), (GCE, VMMType.gce)]
)
def test_sev_snp_measure_computes_the_same(
    hypervisor: object, theirs: VMMType, tmp_path: Path
) -> None:
    image, kernel, initrd = (tmp_path / n for n in ("ovmf", "kernel", "initrd"))
    image.write_bytes(ovmf())
    kernel.write_bytes(b"kernel" * 1000)
    initrd.write_bytes(b"initrd" * 1000)
    full = DirectBoot(
        kernel_digest=hashlib.sha256(kernel.read_bytes()).digest(),
        initrd_digest=hashlib.sha256(initrd.read_bytes()).digest(),
        command_line="console=ttyS0 quiet",
    )
    uki = DirectBoot(kernel_digest=full.kernel_digest)
    cases = (
        (None, ("", "", "")),
        (uki, (str(kernel), "", "")),
        (full, (str(kernel), str(initrd), full.command_line)),
    )
    for (boot, files), vcpus, features in itertools.product(cases, (1, 2, 5), (0x1, 0x21)):
        ours = predict(
            Firmware.parse(image.read_bytes()), boot=boot, vcpus=vcpus, vcpu_signature=MILAN,
            hypervisor=hypervisor, guest_features=features,  # type: ignore[arg-type] # parametrized
        )  # fmt: skip
        expected = guest.calc_launch_digest(
            SevMode.SEV_SNP, vcpus, MILAN, str(image), *files, features, vmm_type=theirs
        )
        assert ours == expected, (boot, vcpus, features)


def test_signatures_of_processors_are_those_of_qemu() -> None:
    models = {"EPYC-Milan": (25, 1, 1), "EPYC-Genoa": (25, 17, 0), "EPYC-Turin": (26, 0, 0)}
    for name, (family, model, stepping) in models.items():
        ours = cpuid_signature(family=family, model=model, stepping=stepping)
        assert ours == vcpu_types.CPU_SIGS[name]


@pytest.mark.parametrize("what", ["firmware", "kernel", "initrd", "command line", "processors"])
def test_whatever_is_started_changes_the_measurement(what: str) -> None:
    def measure(changed: str) -> bytes:
        image = bytearray(ovmf())
        image[100] ^= changed == "firmware"
        boot = DirectBoot(
            kernel_digest=bytes([changed == "kernel"]) * 32,
            initrd_digest=bytes([changed == "initrd"]) * 32,
            command_line="x" * (changed == "command line"),
        )
        return predict(
            Firmware.parse(bytes(image)), boot=boot, vcpus=1 + (changed == "processors"),
            vcpu_signature=MILAN, hypervisor=QEMU,
        )  # fmt: skip

    assert measure(what) != measure("")


def test_firmware_that_cannot_measure_a_kernel_is_refused() -> None:
    boot = DirectBoot(kernel_digest=bytes(32))
    for image in (ovmf(hashes=0), ovmf(sections=SECTIONS[:4]), ovmf(hashes=0x810FF0)):
        with pytest.raises(FormatError, match="OVMF"):
            predict(
                Firmware.parse(image), boot=boot, vcpus=1, vcpu_signature=MILAN, hypervisor=QEMU
            )
    with pytest.raises(FormatError, match="further processors"):
        predict(
            Firmware.parse(ovmf(reset=0)), boot=None, vcpus=2, vcpu_signature=MILAN, hypervisor=QEMU
        )


@given(st.data())
@settings(deadline=None)
def test_any_bytes_at_the_end_of_an_image_are_a_format_error_or_an_image(
    data: st.DataObject,
) -> None:
    image = bytearray(ovmf())
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.sampled_from((len(image) - 0x1000, len(image) - 180)))
        image[first + data.draw(st.integers(0, 120))] = data.draw(st.integers(0, 255))
    try:
        Firmware.parse(bytes(image))
    except FormatError:
        return


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_junk_is_no_image(junk: bytes) -> None:
    with pytest.raises(FormatError):
        Firmware.parse(junk)
    with pytest.raises(FormatError):
        Firmware.parse(junk.rjust(4096, b"\0"))
