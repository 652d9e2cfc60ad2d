"""What a TD quote says, as the layouts that Intel's specification prints; an SGX quote too.

Header, report body, signature data (ECDSA P-256), the quoting enclave's report and the PCK chain.
Sources: "Intel TDX DCAP: Quote Generation Library and Quote Verification Library", revision 0.9,
appendix A.3 (version 4, version 5); "Intel SGX ECDSA QuoteLibReference DCAP API", appendix A
(version 3); "Intel TDX Module 1.5 ABI specification", TDREPORT_STRUCT; body type 4 as published
quotes of 2026 have it (Intel's text of it was not at hand). Numbers are little-endian.
Parsing establishes layout only: what comes out is untrusted until `verify` has seen it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from constellation.base.binary import Layout, Reader, Writer, at
from constellation.base.errors import FormatError

__all__ = [
    "INTEL_QE_VENDOR_ID",
    "MAX_QUOTE_BYTES",
    "BodyType",
    "EnclaveReport",
    "Header",
    "Quote",
    "QuoteSignature",
    "TdReport10",
    "TdReport15",
    "TdReport15Ex",
    "TeeType",
    "parse_quote",
]

INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""QE Vendor ID of Intel's quoting enclaves (appendix A.3.1)."""

MAX_QUOTE_BYTES = 64 * 1024
"""Longer quotes are refused before they are parsed; real ones have 5 to 8 KiB."""

_ECDSA_P256 = 2  # attestation key type
_CERT_QE_REPORT = 6  # certification data that holds QE report, signature and certification data
_CERT_PCK_CHAIN = 5  # certification data that is the PCK chain in PEM
_MAX_CHAIN_BYTES = 16 * 1024
_VERSION_SGX, _VERSION_4, _VERSION_5 = 3, 4, 5


class TeeType(IntEnum):
    """Which kind of trusted execution environment the quote is about (A.3.1)."""

    SGX = 0x00000000
    TDX = 0x00000081


class BodyType(IntEnum):
    """TD Quote Body Type of version 5 (A.3.2); for older versions it follows from the header."""

    ENCLAVE = 1
    TD_10 = 2
    TD_15 = 3
    TD_15_EX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Header(Layout):
    """Quote header (A.3.1), 48 bytes.

    `qe_svn` and `pce_svn` are unsigned copies of what QE report and PCK certificate say: nothing
    is decided by them. `user_data` begins with 16 bytes that a quoting enclave chose for itself.
    """

    SIZE: ClassVar[int] = 48

    version: int = at(0x00, 2, integer=True)
    att_key_type: int = at(0x02, 2, integer=True)
    tee_type: int = at(0x04, 4, integer=True)
    qe_svn: int = at(0x08, 2, integer=True)
    pce_svn: int = at(0x0A, 2, integer=True)
    qe_vendor_id: bytes = at(0x0C, 16)
    user_data: bytes = at(0x1C, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport(Layout):
    """Report body of an SGX enclave, 384 bytes; the quoting enclave's own report has it too.

    Source: Intel SDM volume 3D, table "REPORT"; fields from `isv_ext_prod_id` to `isv_family_id`
    are those of key separation and sharing.
    """

    SIZE: ClassVar[int] = 384

    cpu_svn: bytes = at(0x000, 16)
    misc_select: bytes = at(0x010, 4)
    isv_ext_prod_id: bytes = at(0x020, 16)
    attributes: bytes = at(0x030, 16)
    mr_enclave: bytes = at(0x040, 32)
    mr_signer: bytes = at(0x080, 32)
    config_id: bytes = at(0x0C0, 64)
    isv_prod_id: int = at(0x100, 2, integer=True)
    isv_svn: int = at(0x102, 2, integer=True)
    config_svn: int = at(0x104, 2, integer=True)
    isv_family_id: bytes = at(0x130, 16)
    report_data: bytes = at(0x140, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport10(Layout):
    """TD report body of TDX 1.0 (A.3.2), 584 bytes; registers have 48 bytes, SHA-384."""

    SIZE: ClassVar[int] = 584

    tee_tcb_svn: bytes = at(0x000, 16)
    mr_seam: bytes = at(0x010, 48)
    mr_signer_seam: bytes = at(0x040, 48)
    seam_attributes: bytes = at(0x070, 8)
    td_attributes: int = at(0x078, 8, integer=True)
    xfam: int = at(0x080, 8, integer=True)
    mr_td: bytes = at(0x088, 48)
    mr_config_id: bytes = at(0x0B8, 48)
    mr_owner: bytes = at(0x0E8, 48)
    mr_owner_config: bytes = at(0x118, 48)
    rtmr0: bytes = at(0x148, 48)
    rtmr1: bytes = at(0x178, 48)
    rtmr2: bytes = at(0x1A8, 48)
    rtmr3: bytes = at(0x1D8, 48)
    report_data: bytes = at(0x208, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport15(TdReport10):
    """TD report body of TDX 1.5, 648 bytes.

    `tee_tcb_svn` is the TDX module's when the TD started, `tee_tcb_svn2` the present one's.
    `mr_service_td` is the digest of service TDs that are bound to this one, zero if there is none.
    """

    SIZE: ClassVar[int] = 648

    tee_tcb_svn2: bytes = at(0x248, 16)
    mr_service_td: bytes = at(0x258, 48)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport15Ex(TdReport15):
    """Extended TD report body of newer TDX 1.5 modules, 885 bytes.

    `td_id` is a number of this start of the TD; `init_` fields are of its creation, zero unless a
    service TD may be bound; `cur_service_td_hash` is the digest of those bound now; `dev_info` that
    of the devices which the TD has let in.
    """

    SIZE: ClassVar[int] = 885

    vm_id: int = at(0x288, 1, integer=True)
    td_id: bytes = at(0x289, 32)
    dev_info: bytes = at(0x2A9, 48)
    init_service_td_hash: bytes = at(0x2D9, 48)
    init_service_td_attributes: bytes = at(0x309, 8)
    init_cpu_svn: bytes = at(0x311, 16)
    init_tee_tcb_svn: bytes = at(0x321, 16)
    init_tee_fmspc: bytes = at(0x331, 12)
    cur_service_td_hash: bytes = at(0x33D, 48)
    cur_service_td_attributes: bytes = at(0x36D, 8)


Body = EnclaveReport | TdReport10 | TdReport15 | TdReport15Ex
_BODIES: dict[BodyType, type[EnclaveReport | TdReport10]] = {
    BodyType.ENCLAVE: EnclaveReport,
    BodyType.TD_10: TdReport10,
    BodyType.TD_15: TdReport15,
    BodyType.TD_15_EX: TdReport15Ex,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteSignature:
    """ECDSA 256-bit quote signature data (A.3.4, A.3.11).

    `signature` and `qe_report_signature` are r ‖ s, `attestation_key` is x ‖ y, 64 bytes each and
    big-endian; `pck_chain` is PEM, the leaf first.
    """

    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    pck_chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed quote. `signed` is what its signature covers; `trailing` is covered by nothing."""

    header: Header
    body_type: BodyType
    body: Body
    signature: QuoteSignature
    signed: bytes
    trailing: bytes

    @property
    def tee(self) -> TeeType:
        """What the quote is about."""
        return TeeType(self.header.tee_type)

    def pack(self) -> bytes:
        """Write the quote; the exact inverse of `parse_quote`."""
        data, out = self.signature, Writer(order="little")
        certification = Writer(order="little")
        certification.raw(data.qe_report.pack()).raw(data.qe_report_signature)
        certification.sized(data.qe_auth_data, 2)
        certification.number(_CERT_PCK_CHAIN, 2).sized(data.pck_chain, 4)
        out.raw(data.signature).raw(data.attestation_key)
        if self.header.version == _VERSION_SGX:
            out.raw(certification.done())
        else:
            out.number(_CERT_QE_REPORT, 2).sized(certification.done(), 4)
        whole = Writer(order="little").raw(_signed_bytes(self.header, self.body_type, self.body))
        return whole.sized(out.done(), 4).raw(self.trailing).done()


def parse_quote(data: bytes) -> Quote:
    """Read a quote of version 4 or 5 (TDX, SGX) or 3 (SGX), with whatever bytes follow it.

    Raises:
        FormatError: another version, key type, certification data, or a length that does not fit.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise FormatError(f"quote: {len(data)} bytes, at most {MAX_QUOTE_BYTES} are read")
    read = Reader(data, what="quote", order="little")
    header = Header.parse(read.take(Header.SIZE, "header"))
    if header.version not in (_VERSION_SGX, _VERSION_4, _VERSION_5):
        raise FormatError(f"quote: version {header.version}, want 3, 4 or 5")
    if header.att_key_type != _ECDSA_P256:
        raise FormatError(
            f"quote: attestation key type {header.att_key_type}, want {_ECDSA_P256} (ECDSA P-256)"
        )
    if header.tee_type not in tuple(TeeType):
        raise FormatError(f"quote: TEE type {header.tee_type:#x}, want 0 (SGX) or 0x81 (TDX)")
    body_type = _body_type(read, header)
    kind = _BODIES[body_type]
    body = kind.parse(read.take(kind.SIZE, "body"))
    signed = data[: read.offset]
    signature = _signature(read.sized(4, "signature data", maximum=MAX_QUOTE_BYTES), header.version)
    return Quote(
        header=header,
        body_type=body_type,
        body=body,
        signature=signature,
        signed=signed,
        trailing=read.rest(),
    )


def _body_type(read: Reader, header: Header) -> BodyType:
    sgx = header.tee_type == TeeType.SGX
    if header.version != _VERSION_5:
        if header.version == _VERSION_SGX and not sgx:
            raise FormatError("quote: version 3 is for SGX, its TEE type says TDX")
        return BodyType.ENCLAVE if sgx else BodyType.TD_10
    number, size = read.number(2, "body type"), read.number(4, "body size")
    if number not in tuple(BodyType):
        raise FormatError(f"quote: body type {number}, want 1 (enclave) or 2 to 4 (TD)")
    kind = BodyType(number)
    if (kind is BodyType.ENCLAVE) is not sgx:
        raise FormatError(f"quote: body type {kind.name} with TEE type {header.tee_type:#x}")
    if size != _BODIES[kind].SIZE:
        raise FormatError(f"quote: body of {size} bytes, {kind.name} has {_BODIES[kind].SIZE}")
    return kind


def _signature(data: bytes, version: int) -> QuoteSignature:
    read = Reader(data, what="quote signature data", order="little")
    signature, key = read.take(64, "signature"), read.take(64, "attestation key")
    if version != _VERSION_SGX:
        _expect(read, _CERT_QE_REPORT, "certification data type")
        size = read.number(4, "certification data size")
        if size != read.remaining:
            raise FormatError(
                f"quote: certification data of {size} bytes, {read.remaining} are there"
            )
    report = EnclaveReport.parse(read.take(EnclaveReport.SIZE, "QE report"))
    report_signature = read.take(64, "QE report signature")
    auth_data = read.sized(2, "QE authentication data", maximum=_MAX_CHAIN_BYTES)
    _expect(read, _CERT_PCK_CHAIN, "type of the PCK certification data")
    chain = read.sized(4, "PCK chain", maximum=_MAX_CHAIN_BYTES)
    read.end()
    return QuoteSignature(
        signature=signature,
        attestation_key=key,
        qe_report=report,
        qe_report_signature=report_signature,
        qe_auth_data=auth_data,
        pck_chain=chain,
    )


def _expect(read: Reader, want: int, field: str) -> None:
    number = read.number(2, field)
    if number != want:
        raise FormatError(f"quote: {field} is {number}, want {want}")


def _signed_bytes(header: Header, body_type: BodyType, body: Body) -> bytes:
    out = Writer(order="little").raw(header.pack())
    packed = body.pack()
    if header.version == _VERSION_5:
        out.number(body_type, 2).number(len(packed), 4)
    return out.raw(packed).done()
