"""An Azure HCL report: a chip's report, and the runtime data that the paravisor bound to it.

 1. A header "HCLA", version 1 or 2, kind of request, sizes.
 2. The chip's own report, in 1184 bytes: an SNP report, or a TDX TDREPORT (1024 bytes, then zeros).
 3. The sizes and kinds of what follows, then the runtime data: JSON, whose hash is the first bytes
    of the chip report's report data.
 4. Zeros up to the size of the NV index (0x01400001).

Source: Microsoft, "Azure confidential VMs: guest attestation, HCL report" and OpenHCL's
`attestation-report` structures; sizes and versions agree with all published reports. Little-endian.
What is trusted after `parse`: nothing. `runtime_data_of` proves that the runtime data belongs to
the chip's report; whether that report is genuine is `snp` or `tdx`'s matter.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from constellation.base.binary import Reader, Writer
from constellation.base.errors import FormatError, Untrusted

__all__ = [
    "HW_REPORT_BYTES",
    "TDREPORT_BYTES",
    "HashType",
    "HclReport",
    "ReportType",
    "runtime_data_of",
]

HW_REPORT_BYTES = 1184
"""Room for the chip's report; an SNP report's size."""
TDREPORT_BYTES = 1024

_SIGNATURE = b"HCLA"
_VERSIONS = (1, 2)
_GET_REPORT = 2  # request_type: the platform report
_RUNTIME_DATA_VERSION = 1
_HEADER_BYTES, _RUNTIME_HEADER_BYTES = 32, 20
_MAX_RUNTIME_DATA_BYTES = 16 * 1024
_MAX_REPORT_BYTES = 32 * 1024
_SNP_REPORT_DATA = slice(0x50, 0x90)  # ATTESTATION_REPORT, SEV-SNP ABI 1.58, table 23
_TDX_REPORT_DATA = slice(128, 192)  # REPORTMACSTRUCT, Intel TDX Module ABI 1.5, table 3.35
_REPORT_DATA_BYTES = 64


class ReportType(IntEnum):
    """Which chip made the report."""

    SNP = 2
    TDX = 4


class HashType(IntEnum):
    """How the runtime data was hashed."""

    SHA256 = 1
    SHA384 = 2
    SHA512 = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """The fields of an HCL report; `padding` counts the zero bytes at the end of the NV index."""

    version: int
    status: int
    report_type: ReportType
    hw_report: bytes
    hash_type: HashType
    runtime_data: bytes
    padding: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the content of the NV index.

        Raises:
            FormatError: another layout, an unknown version or kind, bytes that are not zero.
        """
        if len(data) > _MAX_REPORT_BYTES:
            raise FormatError(f"HCL report: {len(data)} bytes, at most {_MAX_REPORT_BYTES}")
        read = Reader(data, what="HCL report", order="little")
        if (signature := read.take(4, "signature")) != _SIGNATURE:
            raise FormatError(f"HCL report: signature {signature!r} at 0x0, want {_SIGNATURE!r}")
        version = _one_of(read, "version", _VERSIONS)
        report_size = read.number(4, "report_size")
        _one_of(read, "request_type", (_GET_REPORT,))
        status = read.number(4, "status")
        _zero(read, 12, "reserved")
        hw_report = read.take(HW_REPORT_BYTES, "hw_report")
        data_size = read.number(4, "data_size")
        _one_of(read, "runtime data version", (_RUNTIME_DATA_VERSION,))
        report_type = ReportType(_one_of(read, "report_type", tuple(ReportType)))
        hash_type = HashType(_one_of(read, "hash_type", tuple(HashType)))
        runtime_data = read.sized(4, "runtime data", maximum=_MAX_RUNTIME_DATA_BYTES)
        if data_size != _RUNTIME_HEADER_BYTES + len(runtime_data):
            raise FormatError(f"HCL report: data_size {data_size} at 0x4c0 does not fit")
        if report_size != _HEADER_BYTES + HW_REPORT_BYTES + data_size:
            raise FormatError(f"HCL report: report_size {report_size} at 0x8 does not fit")
        padding = read.remaining
        _zero(read, padding, "padding")
        if report_type is ReportType.TDX and any(hw_report[TDREPORT_BYTES:]):
            raise FormatError("HCL report: bytes after the TDREPORT are not zero")
        return cls(
            version=version,
            status=status,
            report_type=report_type,
            hw_report=hw_report,
            hash_type=hash_type,
            runtime_data=runtime_data,
            padding=padding,
        )

    def pack(self) -> bytes:
        """Write the report; the exact inverse of `parse`."""
        data_size = _RUNTIME_HEADER_BYTES + len(self.runtime_data)
        out = Writer(order="little").raw(_SIGNATURE).number(self.version, 4)
        out.number(_HEADER_BYTES + HW_REPORT_BYTES + data_size, 4).number(_GET_REPORT, 4)
        out.number(self.status, 4).raw(bytes(12)).raw(self.hw_report).number(data_size, 4)
        out.number(_RUNTIME_DATA_VERSION, 4).number(self.report_type, 4).number(self.hash_type, 4)
        return out.sized(self.runtime_data, 4).raw(bytes(self.padding)).done()

    @property
    def chip_report(self) -> bytes:
        """The SNP report (1184 bytes) or the TDREPORT (1024 bytes)."""
        return self.hw_report[: TDREPORT_BYTES if self.report_type is ReportType.TDX else None]

    @property
    def report_data(self) -> bytes:
        """The chip report's 64 bytes of report data, as claimed."""
        where = _SNP_REPORT_DATA if self.report_type is ReportType.SNP else _TDX_REPORT_DATA
        return self.hw_report[where]

    @property
    def expected_report_data(self) -> bytes:
        """What the report data must be for this runtime data: its hash, then zeros; 64 bytes."""
        digest = hashlib.new(self.hash_type.name.lower(), self.runtime_data).digest()
        return digest.ljust(_REPORT_DATA_BYTES, b"\0")


def runtime_data_of(report: HclReport, *, expected: ReportType, report_data: bytes) -> bytes:
    """Give the runtime data, if a chip's report commits to it.

    Args:
        report: the parsed HCL report.
        expected: the kind of chip that the caller verifies.
        report_data: 64 bytes, from the chip's report or quote that the caller has verified.

    Raises:
        Untrusted: another kind of chip, a failed request, or another hash.
    """
    if report.report_type is not expected:
        raise Untrusted(f"HCL report: of {report.report_type.name}, expected {expected.name}")
    if report.status:
        raise Untrusted(f"HCL report: status {report.status}, want 0")
    wanted = report.expected_report_data
    if not hmac.compare_digest(report_data, wanted):
        raise Untrusted(
            f"HCL report: report data {report_data.hex()}, the runtime data has {wanted.hex()}"
        )
    return report.runtime_data


def _one_of(read: Reader, field: str, allowed: tuple[int, ...]) -> int:
    offset, number = read.offset, read.number(4, field)
    if number not in allowed:
        wanted = " or ".join(str(int(a)) for a in allowed)
        raise FormatError(f"{read.what}: {field} {number} at {offset:#x}, want {wanted}")
    return number


def _zero(read: Reader, size: int, field: str) -> None:
    offset = read.offset
    if any(read.take(size, field)):
        raise FormatError(f"{read.what}: {field} at {offset:#x} is not zero")
