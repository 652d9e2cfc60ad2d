"""Variant `gcp-sev-es`: Google certifies the AK of the hypervisor's vTPM; SEV-ES has no report.

Who is believed: Google and the hypervisor, for everything that is attested. Memory is encrypted by
SEV or SEV-ES, but the guest cannot prove it: the firmware says so in its event log.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `GcpSevEsEvidence`.
 2. The AK's certificate leads to one of the given Google roots, is for an AK, and names an
    instance (`google.certificate`).
 3. The AK's public area has the certified key and makes it an AK.
 4. The quote is that AK's, over SHA-256 of the binding and PCR 0 to 15; the event log replays.
 5. The log's one GCE NonHostInfo event, proven by its digest, names the technology.
 6. The claims pass the policy; registers are explained.

Sources: Google, "Shielded VM", "Confidential VM attestation"; TCG TPM 2.0 Library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.google.technology import Technology, technology
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import gcp, vtpm
from constellation.attestation.tpm.structures import Alg

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy

__all__ = ["WARNING", "GcpSevEsEvidence", "GcpSevEsVerifier", "policy"]

WARNING = (
    "gcp-sev-es: Google's hypervisor says what the registers are; SEV-ES encrypts memory and does "
    "not protect its integrity"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSevEsEvidence:
    """What a node sends; untrusted. `ak_chain`: intermediates (DER) that the verifier may lack."""

    tpm: vtpm.TpmPart
    ak_certificate: bytes
    ak_chain: tuple[bytes, ...]


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    project_ids: tuple[str, ...],
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node; arguments as in `vtpm.register_rules` and `gcp.instance_rules`."""
    registers = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id
    )
    accepted = (Technology.AMD_SEV, Technology.AMD_SEV_ES)
    instance = gcp.instance_rules(project_ids=project_ids, technologies=accepted)
    return {**registers, **vtpm.TPM_RULES, **instance}


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSevEsVerifier:
    """Verifies and appraises `gcp-sev-es` evidence; `trust_roots` are Google's (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = vtpm.open_evidence(GcpSevEsEvidence, evidence, variant=Variant.GCP_SEV_ES)
        certified = gcp.verify_ak(
            document.ak_certificate, ak_chain=document.ak_chain, roots=self.trust_roots, now=now
        )
        tpm = vtpm.verify_tpm(document.tpm, ak=certified.key, binding=binding)
        claims = {
            **tpm.claims,
            **certified.instance.claims,
            "gce.technology": int(technology(tpm.log, bank=Alg.SHA256)),
            "ak.revocation_checked": 0,
        }
        return AttestationResult(
            variant=Variant.GCP_SEV_ES,
            attester_id=tpm.attester_id,
            claims=claims,
            unchecked=vtpm.require(self.policy, claims, log=tpm.log, bank=Alg.SHA256),
            warnings=(WARNING,),
        )
