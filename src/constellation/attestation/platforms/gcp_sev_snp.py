"""Variant `gcp-sev-snp`: the chip vouches for the VM, Google for the vTPM's AK, the VM ties both.

Who is believed: AMD; and Google's hypervisor for its vTPM's registers. The launch measurement
covers Google's firmware only, not what it starts.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `GcpSnpEvidence`.
 2. The SNP report is authentic: VCEK, ASK, one of the given ARKs, revocation list (`snp.verify`).
 3. The AK's certificate leads to one of the given Google roots, is for an AK, names an instance.
 4. The AK's public area has the certified key and makes it an AK.
 5. The report's report data is `chip.report_data` of the binding and that public area: the VM
    that the chip protects says, for this very channel, which AK is its own.
 6. The quote is that AK's, over SHA-256 of the binding and PCR 0 to 15; the event log replays, and
    its GCE NonHostInfo event names the technology.
 7. The claims of report, certificate and registers pass the policy; registers are explained.

What ties chip and quote to one machine is step 5 from the chip's side and step 6 from the vTPM's:
both commit to one binding, which genuine software makes for its own channel only.
Sources: AMD 56860; Google, "Confidential VM attestation"; TCG TPM 2.0 Library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.google.technology import Technology, technology
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import gcp, vtpm
from constellation.attestation.platforms.chip import check_report_data
from constellation.attestation.policy import Unchecked
from constellation.attestation.snp.appraise import relevant
from constellation.attestation.tpm.structures import Alg

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy
    from constellation.attestation.snp.report import Line, Tcb

__all__ = ["GcpSnpEvidence", "GcpSnpVerifier", "policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSnpEvidence:
    """What a node sends; untrusted. `ask` and `crl` are empty where the node has none."""

    tpm: vtpm.TpmPart
    ak_certificate: bytes
    ak_chain: tuple[bytes, ...]
    report: bytes
    vcek: bytes
    ask: bytes
    crl: bytes


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    measurements: tuple[bytes, ...],
    minimum_tcb: Mapping[Line, Tcb],
    project_ids: tuple[str, ...],
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node.

    Args:
        reference: accepted values of registers, as in `vtpm.register_rules`.
        measurements: accepted launch measurements of Google's firmware, 48 bytes each (Google signs
            a list of them); none accepts nothing.
        minimum_tcb: accepted lines of chips with their oldest firmware, as in `snp`.
        project_ids: accepted projects.
        node_document_digest: SHA-256 of the cluster's node document, for PCR 8.
        cluster_id: 32 bytes: PCR 15 must hold this cluster; None: PCR 15 must be zero.
    """
    chip = dict(
        snp.default_policy(report_data=b"", measurements=measurements, minimum_tcb=minimum_tcb)
    )
    chip["report_data"] = Unchecked("verified to commit to this channel and the AK")
    registers = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id
    )
    accepted = (Technology.AMD_SEV_SNP,)
    instance = gcp.instance_rules(project_ids=project_ids, technologies=accepted)
    return {**chip, **registers, **vtpm.TPM_RULES, **instance}


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSnpVerifier:
    """Verifies and appraises `gcp-sev-snp` evidence.

    `chip_roots` are ARKs, `trust_roots` Google's; a chip's root vouches for no AK, and the reverse.
    """

    policy: Policy
    chip_roots: tuple[bytes, ...]
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = vtpm.open_evidence(GcpSnpEvidence, evidence, variant=Variant.GCP_SEV_SNP)
        authentic = snp.verify(
            snp.parse_report(document.report),
            endorsements=snp.Endorsements(
                vek=document.vcek, intermediate=document.ask or None, crl=document.crl or None
            ),
            roots=self.chip_roots,
            now=now,
        )
        certified = gcp.verify_ak(
            document.ak_certificate, ak_chain=document.ak_chain, roots=self.trust_roots, now=now
        )
        check_report_data(
            authentic.claims.report.report_data, binding, companion=document.tpm.ak_public
        )
        tpm = vtpm.verify_tpm(document.tpm, ak=certified.key, binding=binding)
        claims = {
            **snp.claims(authentic),
            **tpm.claims,
            **certified.instance.claims,
            "gce.technology": int(technology(tpm.log, bank=Alg.SHA256)),
            "ak.revocation_checked": 0,
        }
        rules = relevant(self.policy, claims)
        return AttestationResult(
            variant=Variant.GCP_SEV_SNP,
            attester_id=tpm.attester_id,
            claims=claims,
            unchecked=vtpm.require(rules, claims, log=tpm.log, bank=Alg.SHA256),
            warnings=(),
        )
