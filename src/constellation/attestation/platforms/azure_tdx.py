"""Variant `azure-tdx`: Intel vouches for the paravisor, the paravisor for the vTPM's AK.

Who is believed: Intel, and Azure's paravisor, which runs inside the TD and is in MRTD. The host is
not; its quoting service makes quotes of the TDREPORT, and can refuse or delay them only.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `AzureTdxEvidence`.
 2. The TD quote is authentic, with all of its collateral (`tdx.verify`).
 3. The HCL report is of TDX, and the quote's report data is the hash of its runtime data. The
    TDREPORT inside the HCL report has a MAC that only its CPU can check: it must agree with the
    quote in report data and TD measurements, and gives nothing of its own.
 4. The runtime data names the vTPM's AK; the AK's public area has that key and makes it an AK.
 5. The quote of the vTPM is that AK's, over SHA-256 of the binding and PCR 0 to 15; the event log
    replays to them. Freshness comes from here: the TD quote is of boot time.
 6. The claims of TD, configuration and registers pass the policy; registers are explained.

Sources: Microsoft, "Azure confidential VMs: guest attestation"; Intel TDX Module ABI 1.5, table
3.35; Intel TDX DCAP Quoting Library API; TCG TPM 2.0 Library.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.hcl.report import HclReport, ReportType, runtime_data_of
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import vtpm
from constellation.attestation.platforms.azure import configuration_claims, configuration_rules
from constellation.attestation.policy import OneOf, Rule, Unchecked
from constellation.attestation.tdx.appraise import claims as tdx_claims
from constellation.attestation.tdx.appraise import default_policy
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import Quote, TdReport10, parse_quote
from constellation.attestation.tdx.verify import verify as verify_quote
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.model import Authentic
    from constellation.attestation.policy import Policy
    from constellation.attestation.tdx.status import TcbStatus
    from constellation.attestation.tdx.verify import VerifiedQuote

__all__ = ["AzureTdxEvidence", "AzureTdxVerifier", "bound_runtime_data", "policy"]

_TDINFO = 512  # offset of TDINFO_STRUCT in a TDREPORT (TDX Module ABI 1.5, table 3.33)
_MRTD = slice(_TDINFO + 16, _TDINFO + 64)  # after ATTRIBUTES and XFAM (table 3.36)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTdxEvidence:
    """What a node sends; untrusted. `collateral` is `Collateral.dump`'s JSON."""

    tpm: vtpm.TpmPart
    hcl_report: bytes
    td_quote: bytes
    collateral: bytes


def bound_runtime_data(hcl_report: bytes, td_quote: Quote) -> RuntimeData:
    """Verify steps 3 and 4 for a quote that has been, or will be, verified.

    Raises:
        FormatError: the report or its runtime data do not follow their specification.
        Untrusted: another kind of quote, another machine's, or other runtime data.
    """
    report, body = HclReport.parse(hcl_report), td_quote.body
    if not isinstance(body, TdReport10):
        raise Untrusted("TD quote: of an SGX enclave, expected a TD")
    raw = runtime_data_of(report, expected=ReportType.TDX, report_data=body.report_data)
    if not hmac.compare_digest(report.report_data, body.report_data):
        raise Untrusted("HCL report: its TDREPORT has other report data than the quote")
    if not hmac.compare_digest(report.chip_report[_MRTD], body.mr_td):
        raise Untrusted("HCL report: its TDREPORT has another MRTD than the quote")
    return RuntimeData.parse(raw)


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    mr_td: tuple[bytes, ...],
    statuses: tuple[TcbStatus, ...],
    minimum_tcb_evaluation: int,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node.

    Args:
        reference: accepted values of registers, as in `vtpm.register_rules`.
        mr_td: accepted measurements of the paravisor, 48 bytes each; none accepts nothing.
        statuses: accepted TCB statuses.
        minimum_tcb_evaluation: lowest tcbEvaluationDataNumber of collateral.
        node_document_digest: SHA-256 of the cluster's node document, for PCR 8.
        cluster_id: 32 bytes: PCR 15 must hold this cluster; None: PCR 15 must be zero.
    """
    paravisor = Unchecked("the paravisor's; it measures the guest into the vTPM's registers")
    registers: dict[str, Rule] = {
        "mr_td": OneOf(mr_td),
        "mr_config_id": paravisor,
        **{f"rtmr{n}": paravisor for n in range(4)},
    }
    chip = dict(
        default_policy(
            registers,
            # verified in step 3: the hash of the runtime data, which holds this VM's AK
            report_data=b"",
            statuses=statuses,
            minimum_tcb_evaluation=minimum_tcb_evaluation,
        )
    )
    chip["report_data"] = Unchecked("verified to be the hash of the runtime data with the AK")
    chip["td_attributes.sept_ve_disable"] = Unchecked(
        "the paravisor handles #VE in its own partition; Azure's older TDs have the bit clear"
    )
    rules = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id
    )
    return {**chip, **rules, **vtpm.TPM_RULES, **configuration_rules()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTdxVerifier:
    """Verifies and appraises `azure-tdx` evidence; `trust_roots` are Intel's (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = vtpm.open_evidence(AzureTdxEvidence, evidence, variant=Variant.AZURE_TDX)
        verified: Authentic[VerifiedQuote] = verify_quote(
            parse_quote(document.td_quote),
            collateral=Collateral.parse(document.collateral),
            roots=self.trust_roots,
            now=now,
        )
        runtime = bound_runtime_data(document.hcl_report, verified.claims.quote)
        tpm = vtpm.verify_tpm(document.tpm, ak=runtime.ak, binding=binding)
        claims = {**tdx_claims(verified), **tpm.claims, **configuration_claims(runtime)}
        return AttestationResult(
            variant=Variant.AZURE_TDX,
            attester_id=tpm.attester_id,
            claims=claims,
            unchecked=vtpm.require(self.policy, claims, log=tpm.log, bank=Alg.SHA256),
            warnings=(),
        )
