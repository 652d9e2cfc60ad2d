"""Which TCB level of Intel's a platform has, and what Intel says of it.

1. Platform: the first level, from the newest down, none of whose SVNs is above the platform's: 16
   SGX components and PCESVN of the PCK certificate, and for a TD 16 TDX components of its report.
   Where the TDX module has a version (TEE TCB SVN byte 1 is not 0) bytes 0 and 1 belong to the
   module and are left out.
2. TDX module: its signer and attributes are those of the identity of its version, and the first
   identity level whose SVN is not above TEE TCB SVN byte 0 counts.
3. Quoting enclave: MISCSELECT and attributes (masked), signer and product are the identity's; the
   first level whose ISV SVN is not above the report's counts.
4. The status is that of all three together; advisories of all three are listed.

No level: Intel does not support this TCB, nothing that it signs is believed. Source: "Intel SGX
and Intel TDX Provisioning Certification Service API", version 4, "Get TDX TCB Info", notes on TCB
status; "Intel TDX DCAP: Quote Verification".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.tdx.quote import EnclaveReport, TdReport10
from constellation.attestation.tdx.status import TcbStatus, converge
from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.attestation.tdx.endorsements import (
        IdentityLevel,
        ModuleIdentity,
        QeIdentity,
        TcbInfo,
        TcbLevel,
    )
    from constellation.attestation.tdx.pck import PckExtension

__all__ = ["Tcb", "evaluate"]

_MODULE_BYTES = 2  # TEE TCB SVN: byte 0 is the module's SVN, byte 1 its version


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """What Intel says of one platform, TDX module and quoting enclave.

    `status` is that of all; `module_status` is None for SGX and for a module without a version;
    `date` is the date of the platform's level, up to which it has all that Intel asked for.
    """

    status: TcbStatus
    platform_status: TcbStatus
    module_id: str
    module_status: TcbStatus | None
    qe_status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]


def evaluate(
    pck: PckExtension,
    body: EnclaveReport | TdReport10,
    qe_report: EnclaveReport,
    *,
    tcb_info: TcbInfo,
    qe_identity: QeIdentity,
) -> Tcb:
    """Find the levels of platform, module and quoting enclave; all arguments must be verified.

    Raises:
        Untrusted: no level covers a part, its identity is not Intel's, or it was revoked.
    """
    platform = _platform_level(pck, body, tcb_info)
    module_id, module = _module_level(body, tcb_info)
    enclave = _qe_level(qe_report, qe_identity)
    levels = [level for level in (platform, module, enclave) if level is not None]
    status = converge(*(level.status for level in levels))
    if status is TcbStatus.REVOKED:
        raise Untrusted("TCB: Intel revoked this platform's TCB level, TDX module or QE")
    return Tcb(
        status=status,
        platform_status=platform.status,
        module_id=module_id,
        module_status=module.status if module else None,
        qe_status=enclave.status,
        date=platform.date,
        advisories=tuple(sorted({a for level in levels for a in level.advisories})),
    )


def _platform_level(
    pck: PckExtension, body: EnclaveReport | TdReport10, tcb_info: TcbInfo
) -> TcbLevel:
    svns: bytes = b""
    first = 0
    if isinstance(body, TdReport10):
        svns = body.tee_tcb_svn
        first = _MODULE_BYTES if svns[1] else 0
    for level in tcb_info.levels:
        if (
            _covers(pck.components, level.sgx_components)
            and pck.pce_svn >= level.pce_svn
            and _covers(svns[first:], level.tdx_components[first:])
        ):
            return level
    raise Untrusted(
        f"TCB level not supported: no level of Intel's covers SGX SVNs {list(pck.components)}, "
        f"PCESVN {pck.pce_svn}, TDX SVNs {list(svns)}"
    )


def _covers(found: tuple[int, ...] | bytes, least: tuple[int, ...]) -> bool:
    # strict: lists of different length have nothing to do with each other
    return all(have >= want for have, want in zip(found, least, strict=True))


def _module_level(
    body: EnclaveReport | TdReport10, tcb_info: TcbInfo
) -> tuple[str, IdentityLevel | None]:
    if not isinstance(body, TdReport10):
        return "", None
    svn, version = body.tee_tcb_svn[0], body.tee_tcb_svn[1]
    wanted = f"TDX_{version:02X}" if version else ""
    identity = next((m for m in tcb_info.modules if m.id.upper() == wanted), None)
    if identity is None:
        raise Untrusted(f"TDX module: Intel names no identity {wanted or 'without a version'}")
    _check_module(body, identity)
    if not version:
        return "", None
    for level in identity.levels:
        if svn >= level.isv_svn:
            return identity.id, level
    raise Untrusted(f"TDX module: SVN {svn} of {wanted} is below every level of Intel's")


def _check_module(body: TdReport10, identity: ModuleIdentity) -> None:
    if body.mr_signer_seam != identity.mr_signer:
        raise Untrusted(
            f"TDX module: signed by {body.mr_signer_seam.hex()}, want {identity.mr_signer.hex()}"
        )
    if _masked(body.seam_attributes, identity.attributes_mask) != identity.attributes:
        raise Untrusted(
            f"TDX module: attributes {body.seam_attributes.hex()}, "
            f"want {identity.attributes.hex()} under {identity.attributes_mask.hex()}"
        )


def _qe_level(report: EnclaveReport, identity: QeIdentity) -> IdentityLevel:
    checks = (
        ("MRSIGNER", report.mr_signer, identity.mr_signer),
        (
            "MISCSELECT",
            _masked(report.misc_select, identity.misc_select_mask),
            identity.misc_select,
        ),
        ("attributes", _masked(report.attributes, identity.attributes_mask), identity.attributes),
    )
    for name, found, want in checks:
        if found != want:
            raise Untrusted(f"QE report: {name} {found.hex()}, Intel's has {want.hex()}")
    if report.isv_prod_id != identity.isv_prod_id:
        raise Untrusted(
            f"QE report: ISVPRODID {report.isv_prod_id}, Intel's has {identity.isv_prod_id}"
        )
    for level in identity.levels:
        if report.isv_svn >= level.isv_svn:
            return level
    raise Untrusted(f"QE report: ISVSVN {report.isv_svn} is below every level of Intel's")


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(v & m for v, m in zip(value, mask, strict=True))
