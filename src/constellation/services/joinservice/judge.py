"""How a JoinService judges a node: by this cluster's policy of this moment, PCR 15 zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation import registry
from constellation.base import clock
from constellation.trust.appraisal import appraisal_policy

if TYPE_CHECKING:
    from constellation.atls.channel import Appraise
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.trust.node_document import NodeDocument

__all__ = ["fresh_node"]


def fresh_node(files: NodeFiles, document: NodeDocument) -> Appraise:
    """Make the judge of joining nodes: this cluster's policy of this moment, PCR 15 zero."""

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        now = clock.now()
        policy = files.policy(document)
        verifier = registry.verifier(
            document.variant,
            policy=appraisal_policy(policy, document, joined=False, now=now),
            trust_roots=policy.trust_roots,
        )
        return verifier.appraise(evidence, binding=binding, now=now)

    return appraise
