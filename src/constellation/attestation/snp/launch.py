"""Which launch measurement a guest will have: computed from its firmware, kernel and processors.

The secure processor hashes every page that the hypervisor adds at launch, in order: the firmware,
the ranges that the firmware names, the digests of kernel, initrd and command line where the machine
starts a kernel directly, and the initial state (VMSA) of each processor.
Sources: AMD 56860 rev. 1.58, section 8.17.2, Table 67 (PAGE_INFO); AMD 24593 (APM volume 2), Table
B-4 (VMSA); QEMU, docs/system/i386/amd-memory-encryption.rst (kernel hashes).
Nothing is trusted here: it predicts a reference value for the claim `measurement`.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.snp.firmware import PAGE_BYTES, Firmware, Section, SectionKind
from constellation.base.binary import Writer
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "EC2",
    "GCE",
    "QEMU",
    "SNP_ACTIVE",
    "DirectBoot",
    "Hypervisor",
    "cpuid_signature",
    "predict",
]

SNP_ACTIVE = 0x1
"""SEV_FEATURES of a guest that asks for SNP and nothing else (APM volume 2, Table B-4)."""

_PAGE_INFO_BYTES = 0x70
_NORMAL, _VMSA, _ZERO, _SECRETS, _CPUID = 1, 2, 3, 5, 6  # PAGE_TYPE, AMD 56860, Table 66
_UNMEASURED = 4
_VMSA_ADDRESS = 0xFFFFFFFFF000  # of all VMSAs: -1, as a page of 52 bits
_DIGEST_BYTES = 48
_RESET_VECTOR = 0xFFFFFFF0
_MAX_VCPUS = 1024

_HASHES = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_COMMAND_LINE = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b")
_HASH_ENTRY_BYTES = 16 + 2 + 32
_HASH_TABLE_BYTES = 16 + 2 + 3 * _HASH_ENTRY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """What QEMU starts directly: SHA-256 (32 bytes) of kernel and initrd, and the command line.

    A UKI is a kernel without initrd: `initrd_digest` is then SHA-256 of nothing.
    """

    kernel_digest: bytes
    initrd_digest: bytes = hashlib.sha256(b"").digest()
    command_line: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervisor:
    """Where hypervisors differ in a processor's initial state; `QEMU`, `EC2` and `GCE` are known.

    Attributes of segments, PAT, and floating point control; `rdx` None: the CPUID signature.
    """

    cs: int
    cs_first: int
    ss: int
    tr: int
    pat: int
    rdx: int | None
    mxcsr: int
    fcw: int
    cpuid_last: bool
    zero_pages_unmeasured: bool


_PAT_AT_RESET = 0x0007040600070406  # APM volume 2, section 7.8.2
QEMU = Hypervisor(
    cs=0x9B, cs_first=0x9B, ss=0x93, tr=0x8B, pat=_PAT_AT_RESET, rdx=None, mxcsr=0x1F80, fcw=0x37F,
    cpuid_last=False, zero_pages_unmeasured=False,
)  # fmt: skip
EC2 = Hypervisor(
    cs=0x9B, cs_first=0x9A, ss=0x92, tr=0x83, pat=_PAT_AT_RESET, rdx=0x600, mxcsr=0, fcw=0,
    cpuid_last=True, zero_pages_unmeasured=False,
)  # fmt: skip
GCE = Hypervisor(
    cs=0x9B, cs_first=0x9B, ss=0x93, tr=0x8B, pat=0x00070106, rdx=0x600, mxcsr=0, fcw=0,
    cpuid_last=False, zero_pages_unmeasured=True,
)  # fmt: skip


def cpuid_signature(*, family: int, model: int, stepping: int) -> int:
    """Give CPUID Fn0000_0001_EAX of a processor (AMD 25481, section CPUID Fn0000_0001_EAX)."""
    base, extended = min(family, 0xF), max(family - 0xF, 0)
    return extended << 20 | model >> 4 << 16 | base << 8 | (model & 0xF) << 4 | stepping


def predict(
    firmware: Firmware,
    *,
    boot: DirectBoot | None,
    vcpus: int,
    vcpu_signature: int,
    hypervisor: Hypervisor,
    guest_features: int = SNP_ACTIVE,
) -> bytes:
    """Compute the launch digest, 48 bytes (SHA-384).

    Args:
        firmware: the OVMF image.
        boot: what is started directly; None: the firmware looks for a boot loader itself.
        vcpus: how many processors.
        vcpu_signature: from `cpuid_signature`, of the model that the guest is given.
        hypervisor: `QEMU`, `EC2` or `GCE`.
        guest_features: SEV_FEATURES in the VMSA.

    Raises:
        FormatError: the firmware cannot start a kernel directly, or not further processors.
    """
    if not 1 <= vcpus <= _MAX_VCPUS:
        raise FormatError(f"launch: {vcpus} processors, want 1 to {_MAX_VCPUS}")
    digest = _Digest()
    digest.pages(firmware.address, firmware.data)
    hashes = None if boot is None else _hash_page(firmware, boot)
    for section in _ordered(firmware, hypervisor):
        _measure(digest, section, hashes, hypervisor)
    if hashes and not any(s.kind is SectionKind.KERNEL_HASHES for s in firmware.sections):
        raise FormatError("OVMF: no place for the kernel's hashes: it cannot start one directly")
    for address in _start_addresses(firmware, vcpus):
        page = _vmsa(address, vcpu_signature, guest_features, hypervisor)
        digest.page(_VMSA, _VMSA_ADDRESS, hashlib.sha384(page).digest())
    return digest.value


class _Digest:
    """The launch digest so far: each page extends it."""

    def __init__(self) -> None:
        self.value = bytes(_DIGEST_BYTES)

    def page(self, kind: int, address: int, content: bytes = bytes(_DIGEST_BYTES)) -> None:
        info = Writer(order="little").raw(self.value).raw(content)
        # length, type, IMI page, permissions of VMPL 3, 2 and 1, reserved, GPA
        info.number(_PAGE_INFO_BYTES, 2).number(kind, 1).raw(bytes(5)).number(address, 8)
        self.value = hashlib.sha384(info.done()).digest()

    def pages(self, address: int, data: bytes) -> None:
        for offset in range(0, len(data), PAGE_BYTES):
            content = hashlib.sha384(data[offset : offset + PAGE_BYTES]).digest()
            self.page(_NORMAL, address + offset, content)

    def empty_pages(self, kind: int, section: Section) -> None:
        for offset in range(0, section.size_bytes, PAGE_BYTES):
            self.page(kind, section.address + offset)


def _ordered(firmware: Firmware, hypervisor: Hypervisor) -> Iterator[Section]:
    last = hypervisor.cpuid_last
    for cpuid in (False, True) if last else (None,):
        for section in firmware.sections:
            if cpuid is None or (section.kind is SectionKind.CPUID) is cpuid:
                yield section


def _measure(
    digest: _Digest, section: Section, hashes: bytes | None, hypervisor: Hypervisor
) -> None:
    match section.kind:
        case SectionKind.ZERO:
            unmeasured = hypervisor.zero_pages_unmeasured
            digest.empty_pages(_UNMEASURED if unmeasured else _ZERO, section)
        case SectionKind.SECRETS:
            digest.page(_SECRETS, section.address)
        case SectionKind.CPUID:
            digest.page(_CPUID, section.address)
        case SectionKind.KERNEL_HASHES if hashes is not None:
            if section.size_bytes != PAGE_BYTES:
                raise FormatError(f"OVMF: kernel hashes in {section.size_bytes} bytes, want a page")
            digest.pages(section.address, hashes)
        case SectionKind.CALLING_AREA | SectionKind.KERNEL_HASHES:
            digest.empty_pages(_ZERO, section)


def _hash_page(firmware: Firmware, boot: DirectBoot) -> bytes:
    if firmware.hash_table_address is None:
        raise FormatError("OVMF: no table of kernel hashes: it cannot start a kernel directly")
    line = hashlib.sha256(boot.command_line.encode() + b"\0").digest()
    table = Writer(order="little").raw(_HASHES.bytes_le).number(_HASH_TABLE_BYTES, 2)
    entries = ((_COMMAND_LINE, line), (_INITRD, boot.initrd_digest), (_KERNEL, boot.kernel_digest))
    for guid, value in entries:
        table.raw(guid.bytes_le).number(_HASH_ENTRY_BYTES, 2).raw(value)
    offset = firmware.hash_table_address % PAGE_BYTES
    page = bytes(offset) + table.done()
    if len(page) > PAGE_BYTES:
        raise FormatError(f"OVMF: table of kernel hashes at {offset:#x} does not fit its page")
    return page.ljust(PAGE_BYTES, b"\0")


def _start_addresses(firmware: Firmware, vcpus: int) -> Iterator[int]:
    yield _RESET_VECTOR
    if vcpus > 1 and not firmware.reset_address:
        raise FormatError("OVMF: no SEV-ES reset block: it cannot start further processors")
    for _ in range(vcpus - 1):
        yield firmware.reset_address or 0


def _vmsa(address: int, signature: int, features: int, hypervisor: Hypervisor) -> bytes:
    """Write a processor's save area (APM volume 2, Table B-4): state at reset, as KVM sets it."""
    first = address == _RESET_VECTOR
    page = bytearray(PAGE_BYTES)
    segments: Mapping[int, tuple[int, int, int]] = {  # offset: selector, attributes, base
        0x00: (0, 0x93, 0),  # ES
        0x10: (0xF000, hypervisor.cs_first if first else hypervisor.cs, address & 0xFFFF0000),
        0x20: (0, hypervisor.ss, 0),
        0x30: (0, 0x93, 0),  # DS
        0x40: (0, 0x93, 0),  # FS
        0x50: (0, 0x93, 0),  # GS
        0x60: (0, 0, 0),  # GDTR
        0x70: (0, 0x82, 0),  # LDTR
        0x80: (0, 0, 0),  # IDTR
        0x90: (0, hypervisor.tr, 0),
    }
    for offset, (selector, attributes, base) in segments.items():
        entry = Writer(order="little").number(selector, 2).number(attributes, 2)
        page[offset : offset + 16] = entry.number(0xFFFF, 4).number(base, 8).done()
    registers: Mapping[int, tuple[int, int]] = {  # offset: value, size in bytes
        0x0D0: (0x1000, 8),  # EFER: SVME, set by KVM
        0x148: (0x40, 8),  # CR4: MCE, set by KVM
        0x158: (0x10, 8),  # CR0: ET
        0x160: (0x400, 8),  # DR7
        0x168: (0xFFFF0FF0, 8),  # DR6
        0x170: (0x2, 8),  # RFLAGS
        0x178: (address & 0xFFFF, 8),  # RIP
        0x268: (hypervisor.pat, 8),
        0x310: (signature if hypervisor.rdx is None else hypervisor.rdx, 8),  # RDX
        0x3B0: (features, 8),  # SEV_FEATURES
        0x3E8: (0x1, 8),  # XCR0
        0x408: (hypervisor.mxcsr, 4),
        0x410: (hypervisor.fcw, 2),
    }
    for offset, (value, size) in registers.items():
        page[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(page)
