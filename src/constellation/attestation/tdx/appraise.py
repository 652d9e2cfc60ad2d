"""What an authentic quote claims, and the rules that it must keep to be acceptable.

Every field of the report is a claim, every bit of the TD's attributes too, and so is what Intel
says of the platform. Which TCB statuses are good enough is written in the policy: `tcb.status`.
Source: RFC 9334, section 8.5; report fields as in `quote`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from constellation.attestation.policy import AtLeast, Exactly, OneOf, Policy, Rule, Unchecked
from constellation.attestation.tdx.attributes import TdAttribute, reserved_bits
from constellation.attestation.tdx.quote import (
    EnclaveReport,
    TdReport10,
    TdReport15,
    TdReport15Ex,
)
from constellation.attestation.tdx.status import TcbStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import Authentic, Claims
    from constellation.attestation.tdx.verify import VerifiedQuote

__all__ = [
    "REGISTERS",
    "STRICT_STATUSES",
    "attester_id",
    "claims",
    "default_policy",
    "enclave_policy",
]

REGISTERS = ("mr_td", "mr_config_id", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
"""Claims that say which software a TD runs, 48 bytes each; each variant decides their rules."""

STRICT_STATUSES = (TcbStatus.UP_TO_DATE,)
"""What the default policies accept: nothing that Intel knows a fault of."""

_ZERO_48 = bytes(48)
_EXTENDED = (
    *("td_id", "dev_info", "init_service_td_hash", "init_service_td_attributes"),
    *("init_cpu_svn", "init_tee_tcb_svn", "init_tee_fmspc"),
    *("cur_service_td_hash", "cur_service_td_attributes"),
)
"""Fields that only the extended body has; empty in others."""
_SGX_DEBUG = 0x02  # ATTRIBUTES.DEBUG (SDM volume 3D, table "ATTRIBUTES")


def claims(verified: Authentic[VerifiedQuote]) -> Claims:
    """Give what a verified quote says, flat.

    Words (`tcb.status`, `tcb.advisories`) are ASCII; `tcb.date` is a number like 20240313; a field
    that this kind of quote does not have is empty bytes. Attribute bits are 0 or 1.
    """
    quote = verified.claims
    body = quote.quote.body
    found = _platform(quote)
    if isinstance(body, EnclaveReport):
        return found | _enclave(body)
    return found | _td(body)


def attester_id(verified: Authentic[VerifiedQuote]) -> bytes:
    """Give the platform's identity: SHA-256 (32 bytes) of its PPID.

    TDs on one platform share it, and it stays the same through TCB recoveries.
    """
    return hashlib.sha256(verified.claims.pck.ppid).digest()


def default_policy(
    registers: Mapping[str, Rule],
    *,
    report_data: bytes,
    statuses: tuple[TcbStatus, ...],
    minimum_tcb_evaluation: int,
) -> Policy:
    """Give the rules for a TD.

    Args:
        registers: a rule for each of `REGISTERS`; one that is left out accepts nothing.
        report_data: 64 bytes that the quote must commit to.
        statuses: accepted TCB statuses, usually `STRICT_STATUSES`.
        minimum_tcb_evaluation: the lowest tcbEvaluationDataNumber of accepted collateral, so that
            nobody shows older statements of Intel's that have not expired yet.

    Raises:
        ValueError: a register that is none, or a status that cannot be accepted.
    """
    if unknown := sorted(registers.keys() - set(REGISTERS)):
        raise ValueError(f"no register of a TD: {', '.join(unknown)}")
    policy: dict[str, Rule] = {name: registers.get(name, OneOf(())) for name in REGISTERS}
    policy |= _platform_rules(statuses, minimum_tcb_evaluation)
    policy |= {f"td_attributes.{a.name}".lower(): Exactly(0) for a in TdAttribute}
    policy |= {
        "report_data": Exactly(report_data),
        "td_attributes.lass": Unchecked("protects the guest's kernel from its own programs"),
        "td_attributes.reserved": Exactly(0),
        "td_attributes.sept_ve_disable": Exactly(1),
        "tee_tcb_svn": Unchecked("tcb.status says what Intel thinks of these versions"),
        "tee_tcb_svn2": Unchecked("the module since its last update; tee_tcb_svn is judged"),
        "mr_seam": Unchecked("Intel's signature and tcb.status stand for the TDX module"),
        "mr_signer_seam": Exactly(_ZERO_48),
        "mr_owner": Exactly(_ZERO_48),
        "mr_owner_config": Exactly(_ZERO_48),
        # TDX 1.0 reports have no such field, and no service TD can be bound to a TD that cannot
        # be migrated
        "mr_service_td": OneOf((b"", _ZERO_48)),
        "vm_id": Exactly(0),
        "td_id": Unchecked("a number of this start of the TD; says nothing about what runs"),
        "dev_info": OneOf((b"", _ZERO_48)),
        "init_service_td_hash": OneOf((b"", _ZERO_48)),
        "init_service_td_attributes": OneOf((b"", bytes(8))),
        "init_cpu_svn": Unchecked("of the platform where a TD was made that can be migrated"),
        "init_tee_tcb_svn": Unchecked("of the platform where a TD was made that can be migrated"),
        "init_tee_fmspc": Unchecked("of the platform where a TD was made that can be migrated"),
        "cur_service_td_hash": OneOf((b"", _ZERO_48)),
        "cur_service_td_attributes": OneOf((b"", bytes(8))),
        "seam_attributes": Exactly(bytes(8)),
        "xfam": Unchecked("CPU features that the TD may use; none lets the host look in"),
    }
    return policy


def enclave_policy(
    *,
    mr_enclave: Rule,
    mr_signer: Rule,
    isv_svn: Rule,
    report_data: bytes,
    statuses: tuple[TcbStatus, ...],
    minimum_tcb_evaluation: int,
) -> Policy:
    """Give the rules for an SGX enclave; arguments as in `default_policy`."""
    policy = _platform_rules(statuses, minimum_tcb_evaluation)
    policy |= {
        "attributes": Unchecked("only its debug bit lets the host look in"),
        "attributes.debug": Exactly(0),
        "config_id": Exactly(bytes(64)),
        "config_svn": Exactly(0),
        "cpu_svn": Unchecked("tcb.status says what Intel thinks of these versions"),
        "isv_ext_prod_id": Exactly(bytes(16)),
        "isv_family_id": Exactly(bytes(16)),
        "isv_prod_id": Unchecked("one signer's products differ in mr_enclave"),
        "isv_svn": isv_svn,
        "misc_select": Unchecked("what an exception saves inside the enclave"),
        "mr_enclave": mr_enclave,
        "mr_signer": mr_signer,
        "report_data": Exactly(report_data),
    }
    return policy


def _platform(quote: VerifiedQuote) -> dict[str, bytes | int]:
    pck, tcb = quote.pck, quote.tcb
    return {
        "pck.cached_keys": _flag(pck.cached_keys),
        "pck.dynamic_platform": _flag(pck.dynamic_platform),
        "pck.fmspc": pck.fmspc,
        "pck.platform_instance_id": pck.platform_instance_id or b"",
        "pck.ppid": pck.ppid,
        "pck.smt_enabled": _flag(pck.smt_enabled),
        "tcb.advisories": ",".join(tcb.advisories).encode(),
        "tcb.date": int(f"{tcb.date:%Y%m%d}"),
        "tcb.evaluation": quote.tcb_evaluation_data_number,
        "tcb.status": tcb.status.encode(),
    }


def _platform_rules(statuses: tuple[TcbStatus, ...], evaluation: int) -> dict[str, Rule]:
    if TcbStatus.REVOKED in statuses:
        raise ValueError("a revoked TCB is never accepted")
    any_machine = Unchecked("which machine of the provider's this is; any will do")
    settings = Unchecked("a setting that matters makes tcb.status ConfigurationNeeded")
    return {
        "pck.cached_keys": settings,
        "pck.dynamic_platform": settings,
        "pck.fmspc": Unchecked("which model this is; tcb.status is about this very model"),
        "pck.platform_instance_id": any_machine,
        "pck.ppid": any_machine,
        "pck.smt_enabled": settings,
        "tcb.advisories": Unchecked("tcb.status is Intel's sum of them"),
        "tcb.date": Unchecked("tcb.status says whether the platform is up to date"),
        "tcb.evaluation": AtLeast(evaluation),
        "tcb.status": OneOf(tuple(status.encode() for status in statuses)),
    }


def _td(body: TdReport10) -> dict[str, bytes | int]:
    newer = body if isinstance(body, TdReport15) else None
    found: dict[str, bytes | int] = {
        "mr_config_id": body.mr_config_id,
        "mr_owner": body.mr_owner,
        "mr_owner_config": body.mr_owner_config,
        "mr_seam": body.mr_seam,
        "mr_service_td": newer.mr_service_td if newer else b"",
        "mr_signer_seam": body.mr_signer_seam,
        "mr_td": body.mr_td,
        "report_data": body.report_data,
        "rtmr0": body.rtmr0,
        "rtmr1": body.rtmr1,
        "rtmr2": body.rtmr2,
        "rtmr3": body.rtmr3,
        "seam_attributes": body.seam_attributes,
        "td_attributes.reserved": reserved_bits(body.td_attributes),
        "tee_tcb_svn": body.tee_tcb_svn,
        "tee_tcb_svn2": newer.tee_tcb_svn2 if newer else b"",
        "xfam": body.xfam,
    }
    extended = body if isinstance(body, TdReport15Ex) else None
    found["vm_id"] = extended.vm_id if extended else 0  # 0: the TD itself, no VM inside it
    for name in _EXTENDED:
        found[name] = getattr(extended, name) if extended else b""
    for attribute in TdAttribute:
        name = f"td_attributes.{attribute.name}".lower()
        found[name] = int(bool(body.td_attributes & attribute))
    return found


def _enclave(body: EnclaveReport) -> dict[str, bytes | int]:
    return {
        "attributes": body.attributes,
        "attributes.debug": int(bool(body.attributes[0] & _SGX_DEBUG)),
        "config_id": body.config_id,
        "config_svn": body.config_svn,
        "cpu_svn": body.cpu_svn,
        "isv_ext_prod_id": body.isv_ext_prod_id,
        "isv_family_id": body.isv_family_id,
        "isv_prod_id": body.isv_prod_id,
        "isv_svn": body.isv_svn,
        "misc_select": body.misc_select,
        "mr_enclave": body.mr_enclave,
        "mr_signer": body.mr_signer,
        "report_data": body.report_data,
    }


def _flag(value: bool | None) -> int | bytes:
    return b"" if value is None else int(value)
