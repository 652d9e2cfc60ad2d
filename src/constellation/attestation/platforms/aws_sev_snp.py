"""Variant `aws-sev-snp`: the chip vouches for the VM, the Nitro hypervisor for the registers.

Who is believed: AMD, who lent AWS the VLEK; and AWS' hypervisor for its TPM's registers. The launch
measurement covers AWS' firmware only, not what it starts.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `AwsSnpEvidence`.
 2. The SNP report is authentic: VLEK of AWS, ASVK, one of the given ARKs, revocation list.
 3. The NitroTPM document is signed under one of the given AWS roots, valid now, with SHA-256 of the
    binding as its nonce; the event log replays to its registers (SHA-384).
 4. The report's report data is `chip.report_data` of the binding and that document.
 5. The claims of report, document and registers pass the policy; registers are explained.

Why a document and not a quote: nobody certifies the AK of a NitroTPM. An AK that only the report's
report data names is whatever software in any SNP VM says it is, and that software could sign the
registers that it likes. The document is the hypervisor's own word. Sources: AMD 56860, section 3;
AWS, "AMD SEV-SNP for Amazon EC2", "NitroTPM attestation document".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import vtpm
from constellation.attestation.platforms.aws_nitro_tpm import (
    BANK,
    document_rules,
    verify_document,
)
from constellation.attestation.platforms.chip import check_report_data
from constellation.attestation.policy import Unchecked
from constellation.attestation.snp.appraise import relevant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy
    from constellation.attestation.snp.report import Line, Tcb

__all__ = ["AwsSnpEvidence", "AwsSnpVerifier", "policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSnpEvidence:
    """What a node sends; untrusted. `asvk` and `crl` are empty where the node has none."""

    report: bytes
    vlek: bytes
    asvk: bytes
    crl: bytes
    document: bytes
    event_log: bytes


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    measurements: tuple[bytes, ...],
    minimum_tcb: Mapping[Line, Tcb],
    csp_ids: tuple[str, ...],
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node.

    Args:
        reference: accepted values (SHA-384) of registers, as in `vtpm.register_rules`.
        measurements: accepted launch measurements of AWS' firmware, 48 bytes each (its source is
            published and reproducible); none accepts nothing.
        minimum_tcb: accepted lines of chips with their oldest firmware, as in `snp`.
        csp_ids: accepted names of VLEKs, for example `CN=cc-us-east-2.amazonaws.com`.
        node_document_digest: SHA-384 of the cluster's node document, for PCR 8.
        cluster_id: 32 bytes: PCR 15 must hold this cluster; None: PCR 15 must be zero.
    """
    chip = dict(
        snp.default_policy(
            report_data=b"",
            measurements=measurements,
            minimum_tcb=minimum_tcb,
            signing_key=snp.SigningKey.VLEK,
            csp_ids=csp_ids,
        )
    )
    chip["report_data"] = Unchecked("verified to commit to this channel and the document")
    registers = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id, bank=BANK
    )
    return {**chip, **registers, **document_rules()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSnpVerifier:
    """Verifies and appraises `aws-sev-snp` evidence.

    `chip_roots` are ARKs, `trust_roots` AWS'; a chip's root vouches for no document.
    """

    policy: Policy
    chip_roots: tuple[bytes, ...]
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        given = vtpm.open_evidence(AwsSnpEvidence, evidence, variant=Variant.AWS_SEV_SNP)
        authentic = snp.verify(
            snp.parse_report(given.report),
            endorsements=snp.Endorsements(
                vek=given.vlek, intermediate=given.asvk or None, crl=given.crl or None
            ),
            roots=self.chip_roots,
            now=now,
        )
        nitro = verify_document(
            given.document,
            event_log=given.event_log,
            nonce=vtpm.qualifying_data(binding),
            roots=self.trust_roots,
            now=now,
        )
        check_report_data(authentic.claims.report.report_data, binding, companion=given.document)
        claims = {**snp.claims(authentic), **nitro.claims}
        return AttestationResult(
            variant=Variant.AWS_SEV_SNP,
            attester_id=nitro.attester_id,
            claims=claims,
            unchecked=vtpm.require(relevant(self.policy, claims), claims, log=nitro.log, bank=BANK),
            warnings=(),
        )
