"""Variant `azure-sev-snp`: the chip vouches for the paravisor, the paravisor for the vTPM's AK.

Who is believed: AMD, and Azure's paravisor (HCL), which runs inside the encrypted VM and is in the
launch measurement. The host and its hypervisor are not.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `AzureSnpEvidence`.
 2. The HCL report carries an SNP report; the report is authentic: VCEK, ASK, one of the given ARKs,
    revocation list, chip id and TCB (`snp.verify`).
 3. The report's report data is the hash of the HCL report's runtime data: the paravisor, and
    nobody else in VMPL 0, put it there when the VM started.
 4. The runtime data names the vTPM's AK; the AK's public area has that key and makes it an AK.
 5. The quote is that AK's, over SHA-256 of the binding and PCR 0 to 15; the event log replays to
    them (`vtpm.verify_tpm`). Freshness comes from here: the chip's report is of boot time.
 6. The claims of report, configuration and registers pass the policy; registers are explained.

What ties chip and quote to one machine is step 3 and 4: another machine's quote is another AK's.
Sources: Microsoft, "Azure confidential VMs: guest attestation"; AMD 56860; TCG TPM 2.0 Library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.hcl.report import HclReport, ReportType, runtime_data_of
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import vtpm
from constellation.attestation.platforms.azure import configuration_claims, configuration_rules
from constellation.attestation.policy import Unchecked
from constellation.attestation.snp.appraise import relevant
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.model import Authentic
    from constellation.attestation.policy import Policy
    from constellation.attestation.snp.endorsements import Endorsements
    from constellation.attestation.snp.report import Line, Tcb
    from constellation.attestation.snp.verify import EndorsedReport

__all__ = ["AzureSnpEvidence", "AzureSnpVerifier", "policy", "verify_hcl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSnpEvidence:
    """What a node sends; untrusted. `ask` and `crl` are empty where the node has none."""

    tpm: vtpm.TpmPart
    hcl_report: bytes
    vcek: bytes
    ask: bytes
    crl: bytes


def verify_hcl(
    hcl_report: bytes, *, endorsements: Endorsements, roots: tuple[bytes, ...], now: datetime
) -> tuple[Authentic[EndorsedReport], RuntimeData]:
    """Verify steps 2 to 4: an HCL report with its chip's chain; gives report and runtime data.

    Args:
        hcl_report: content of NV index 0x01400001.
        endorsements: the VCEK's certificate and, where known, ASK and revocation list.
        roots: ARK certificates that are trusted.
        now: the time to verify at.

    Raises:
        FormatError: a part does not follow its specification.
        Untrusted: the first check that fails.
    """
    report = HclReport.parse(hcl_report)
    if report.report_type is not ReportType.SNP:
        raise Untrusted(f"HCL report: of {report.report_type.name}, expected SNP")
    authentic = snp.verify(
        snp.parse_report(report.chip_report), endorsements=endorsements, roots=roots, now=now
    )
    signed = authentic.claims.report.report_data
    raw = runtime_data_of(report, expected=ReportType.SNP, report_data=signed)
    return authentic, RuntimeData.parse(raw)


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    measurements: tuple[bytes, ...],
    id_key_digests: tuple[bytes, ...],
    minimum_tcb: Mapping[Line, Tcb],
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node.

    Args:
        reference: accepted values of registers, as in `vtpm.register_rules`.
        measurements: accepted launch measurements of the paravisor, 48 bytes each. Empty: the ID
            key decides, since Azure changes the paravisor without notice.
        id_key_digests: accepted digests (48 bytes) of the key that signs Azure's paravisors.
        minimum_tcb: accepted lines of chips with their oldest firmware, as in `snp`.
        node_document_digest: SHA-256 of the cluster's node document, for PCR 8.
        cluster_id: 32 bytes: PCR 15 must hold this cluster; None: PCR 15 must be zero.

    Raises:
        ValueError: neither measurement nor ID key: any software would pass as the paravisor.
    """
    if not measurements and not id_key_digests:
        raise ValueError("azure-sev-snp: want accepted measurements or ID key digests, or both")
    chip = dict(
        snp.default_policy(
            # verified in step 3: the hash of the runtime data, which holds this VM's AK
            report_data=b"",
            measurements=measurements,
            minimum_tcb=minimum_tcb,
            id_key_digests=id_key_digests,
        )
    )
    chip["report_data"] = Unchecked("verified to be the hash of the runtime data with the AK")
    if not measurements:
        chip["measurement"] = Unchecked("the paravisor's; the ID key that signed it is checked")
    registers = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id
    )
    return {**chip, **registers, **vtpm.TPM_RULES, **configuration_rules()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSnpVerifier:
    """Verifies and appraises `azure-sev-snp` evidence; `trust_roots` are ARKs (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = vtpm.open_evidence(AzureSnpEvidence, evidence, variant=Variant.AZURE_SEV_SNP)
        endorsements = snp.Endorsements(
            vek=document.vcek, intermediate=document.ask or None, crl=document.crl or None
        )
        authentic, runtime = verify_hcl(
            document.hcl_report, endorsements=endorsements, roots=self.trust_roots, now=now
        )
        tpm = vtpm.verify_tpm(document.tpm, ak=runtime.ak, binding=binding)
        claims = {**snp.claims(authentic), **tpm.claims, **configuration_claims(runtime)}
        rules = relevant(self.policy, claims)
        return AttestationResult(
            variant=Variant.AZURE_SEV_SNP,
            attester_id=tpm.attester_id,
            claims=claims,
            unchecked=vtpm.require(rules, claims, log=tpm.log, bank=Alg.SHA256),
            warnings=(),
        )
