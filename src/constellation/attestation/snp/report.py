"""The SEV-SNP attestation report: claims that AMD's secure processor signs about this guest.

Source: AMD 56860, "SEV Secure Nested Paging Firmware ABI Specification", rev. 1.58, section 7.3,
Table 23 (ATTESTATION_REPORT), versions 2 to 5, Table 3 (TCB_VERSION), Table 9 (guest policy).
Integers are little-endian. Parsing establishes shape only; nothing here is trusted yet. What the
tables reserve within the signed bytes is kept: firmware to come may use it, and a policy judges it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import ClassVar, Self

from constellation.base.binary import Layout, at
from constellation.base.errors import FormatError

__all__ = [
    "REPORT_BYTES",
    "SIGNED_BYTES",
    "GuestPolicy",
    "Line",
    "PlatformInfo",
    "Product",
    "Report",
    "SigningKey",
    "Tcb",
    "parse_report",
]

REPORT_BYTES = 0x4A0
"""Size of a report of every version."""

SIGNED_BYTES = 0x2A0
"""The signature covers the report's first 0x2A0 bytes (section 7.3)."""

_VERSIONS = range(2, 6)
_VERSION_WITH_CPUID = 3
_VERSION_WITH_MITIGATIONS = 4  # published for 5; 4 has no document of its own


class Product(StrEnum):
    """A line of chips with keys of its own, by the name that AMD's certificates give it."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class Line(StrEnum):
    """Chips whose firmware versions can be compared; several lines may share a product's keys."""

    MILAN = "milan"
    GENOA = "genoa"
    BERGAMO = "bergamo"
    """Bergamo and Siena: Genoa's keys, microcode numbers of their own."""
    TURIN = "turin"
    TURIN_DENSE = "turin-dense"

    @property
    def product(self) -> Product:
        """Whose keys the chips of this line have."""
        return _PRODUCTS[self]


_PRODUCTS = {
    Line.MILAN: Product.MILAN,
    Line.GENOA: Product.GENOA,
    Line.BERGAMO: Product.GENOA,
    Line.TURIN: Product.TURIN,
    Line.TURIN_DENSE: Product.TURIN,
}
# before version 3 a report does not say its CPUID: taken for the line with the higher numbers
_WITHOUT_CPUID = {
    Product.MILAN: Line.MILAN,
    Product.GENOA: Line.GENOA,
    Product.TURIN: Line.TURIN,
}


class SigningKey(StrEnum):
    """Which key signs a report (Table 23, SIGNING_KEY): the chip's own, or one lent to a cloud."""

    VCEK = "VCEK"
    VLEK = "VLEK"


class GuestPolicy(IntFlag):
    """What the guest's owner allowed at launch (Table 9); ABI numbers are apart."""

    SMT = 1 << 16
    MUST_BE_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL_ALLOW = 1 << 21
    MEM_AES_256_XTS = 1 << 22
    RAPL_DIS = 1 << 23
    CIPHERTEXT_HIDING_DRAM = 1 << 24
    PAGE_SWAP_DISABLE = 1 << 25


class PlatformInfo(IntFlag):
    """How the machine is set up (Table 24, PLATFORM_INFO)."""

    SMT_EN = 1 << 0
    TSME_EN = 1 << 1
    ECC_EN = 1 << 2
    RAPL_DIS = 1 << 3
    CIPHERTEXT_HIDING_DRAM_EN = 1 << 4
    ALIAS_CHECK_COMPLETE = 1 << 5
    TIO_EN = 1 << 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """Security version numbers (0 to 255) of a chip's firmware; `fmc` is 0 before Turin."""

    fmc: int
    bootloader: int
    tee: int
    snp: int
    microcode: int

    @classmethod
    def parse(cls, raw: bytes, *, product: Product) -> Self:
        """Read a TCB_VERSION (8 bytes; Table 3 and, from Turin on, Table 4).

        Raises:
            FormatError: another size, or a reserved byte is not zero.
        """
        if len(raw) != 8:  # noqa: PLR2004 - the size in the table
            raise FormatError(f"TCB_VERSION: {len(raw)} bytes, want 8")
        if product is Product.TURIN:
            reserved = raw[4:7]
            tcb = cls(fmc=raw[0], bootloader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
        else:
            reserved = raw[2:6]
            tcb = cls(fmc=0, bootloader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])
        if any(reserved):
            raise FormatError(f"TCB_VERSION of {product}: reserved bytes {reserved.hex()}, want 0")
        return tcb

    def pack(self, *, product: Product) -> bytes:
        """Write the TCB_VERSION; the exact inverse of `parse`."""
        if product is Product.TURIN:
            head = bytes((self.fmc, self.bootloader, self.tee, self.snp))
            return head + bytes(3) + bytes((self.microcode,))
        head = bytes((self.bootloader, self.tee))
        return head + bytes(4) + bytes((self.snp, self.microcode))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Layout):
    """ATTESTATION_REPORT, Table 23. Make one with `parse_report`."""

    SIZE: ClassVar[int] = REPORT_BYTES

    version: int = at(0x000, 4, integer=True)
    guest_svn: int = at(0x004, 4, integer=True)
    policy: int = at(0x008, 8, integer=True)
    family_id: bytes = at(0x010, 16)
    image_id: bytes = at(0x020, 16)
    vmpl: int = at(0x030, 4, integer=True)
    signature_algo: int = at(0x034, 4, integer=True)
    current_tcb: bytes = at(0x038, 8)
    platform_info: int = at(0x040, 8, integer=True)
    key_info: int = at(0x048, 4, integer=True)
    reserved_04c: bytes = at(0x04C, 4)
    report_data: bytes = at(0x050, 64)  # the only bytes that the guest chooses
    measurement: bytes = at(0x090, 48)  # SHA-384 launch digest
    host_data: bytes = at(0x0C0, 32)
    id_key_digest: bytes = at(0x0E0, 48)
    author_key_digest: bytes = at(0x110, 48)
    report_id: bytes = at(0x140, 32)
    report_id_ma: bytes = at(0x160, 32)
    reported_tcb: bytes = at(0x180, 8)
    cpuid_fam_id: int = at(0x188, 1, integer=True)  # version 3 and later, as are the next two
    cpuid_mod_id: int = at(0x189, 1, integer=True)
    cpuid_step: int = at(0x18A, 1, integer=True)
    reserved_18b: bytes = at(0x18B, 21)
    chip_id: bytes = at(0x1A0, 64)
    committed_tcb: bytes = at(0x1E0, 8)
    current_version: bytes = at(0x1E8, 3)  # build, minor, major
    reserved_1eb: bytes = at(0x1EB, 1)
    committed_version: bytes = at(0x1EC, 3)
    reserved_1ef: bytes = at(0x1EF, 1)
    launch_tcb: bytes = at(0x1F0, 8)
    launch_mit_vector: int = at(0x1F8, 8, integer=True)  # version 5 and later, as is the next
    current_mit_vector: int = at(0x200, 8, integer=True)
    reserved_208: bytes = at(0x208, 152)
    signature_r: bytes = at(0x2A0, 72)  # little-endian, section 7.3, Table 25
    signature_s: bytes = at(0x2E8, 72)

    @property
    def reserved(self) -> bytes:
        """All that the tables do not give a meaning to in a report of this version; else zero."""
        found = [self.reserved_04c, self.reserved_18b, self.reserved_1eb, self.reserved_1ef]
        if self.version < _VERSION_WITH_CPUID:
            found.append(bytes((self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step)))
        if self.version < _VERSION_WITH_MITIGATIONS:
            vectors = (self.launch_mit_vector, self.current_mit_vector)
            found += [vector.to_bytes(8, "little") for vector in vectors]
        return b"".join((*found, self.reserved_208))

    @property
    def author_key_en(self) -> bool:
        """Whether an author key vouches for the ID key (KEY_INFO, bit 0)."""
        return bool(self.key_info & 1)

    @property
    def mask_chip_key(self) -> bool:
        """Whether the host forbids the chip's key; such a report has no signature (bit 1)."""
        return bool(self.key_info >> 1 & 1)

    @property
    def signing_key(self) -> SigningKey | None:
        """Which key signed (KEY_INFO, bits 4:2); None: none, or a value without a meaning."""
        return {0: SigningKey.VCEK, 1: SigningKey.VLEK}.get(self.key_info >> 2 & 7)

    def certified_product(self, otherwise: Product | None) -> Product | None:
        """Give whose keys the chip has; `otherwise` before version 3, which does not say it.

        Raises:
            FormatError: a family and model of no line that we know.
        """
        if self.version < _VERSION_WITH_CPUID:
            return otherwise
        return self.line(Product.MILAN).product  # the argument is not used from version 3 on

    def line(self, certified: Product) -> Line:
        """Give the line of chips by CPUID; before version 3 only the certificate says something.

        Raises:
            FormatError: a family and model of no line that we know.
        """
        if self.version < _VERSION_WITH_CPUID:
            return _WITHOUT_CPUID[certified]
        family, model = self.cpuid_fam_id, self.cpuid_mod_id
        for line, families, models in _LINES:
            if family == families and model in models:
                return line
        raise FormatError(
            f"ATTESTATION_REPORT: CPUID family {family:#x} model {model:#x} at 0x188 is no line "
            "of chips that we know"
        )


# family and models: AMD's processor programming references; AMD 57230, Table 3
_LINES = (
    (Line.MILAN, 0x19, range(0x10)),
    (Line.GENOA, 0x19, range(0x10, 0x20)),
    (Line.BERGAMO, 0x19, range(0xA0, 0xB0)),
    (Line.TURIN, 0x1A, range(0x10)),
    (Line.TURIN_DENSE, 0x1A, range(0x10, 0x20)),
)


def parse_report(data: bytes) -> Report:
    """Read one report of version 2 to 5, 1184 bytes.

    Raises:
        FormatError: another size or version, or a byte behind the signature that is not zero.
    """
    report = Report.parse(data)
    if report.version not in _VERSIONS:
        raise FormatError(f"ATTESTATION_REPORT: unsupported version {report.version}, want 2 to 5")
    return report
