"""How a JoinService judges a node: by this cluster's policy of this moment, PCR 15 zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.trust.appraisal import node_verifier

if TYPE_CHECKING:
    from constellation.atls.channel import Appraise
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["fresh_node"]


def fresh_node(kept: KeptPolicy) -> Appraise:
    """Make the judge of joining nodes: this cluster's policy of this moment, PCR 15 zero."""

    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        now = clock.now_for_windows()
        verifier = node_verifier(kept.verified(), kept.document, joined=False, now=now)
        return verifier.appraise(evidence, binding=binding, now=now)

    return appraise
