"""How a JoinService judges a node: by this cluster's policy of this moment, and its PCR 15."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.trust.appraisal import node_verifier

if TYPE_CHECKING:
    from constellation.atls.channel import Appraise
    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["fresh_node", "given_node"]


def fresh_node(kept: KeptPolicy) -> Appraise:
    """Make the judge of nodes that join or come back: PCR 15 must be zero."""
    return _judge(kept, joined=False)


def given_node(kept: KeptPolicy) -> Appraise:
    """Make the judge of nodes that renew certificates: PCR 15 must be this cluster's."""
    return _judge(kept, joined=True)


def _judge(kept: KeptPolicy, *, joined: bool) -> Appraise:
    def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
        now = clock.now_for_windows()
        verifier = node_verifier(kept.verified(), kept.document, joined=joined, now=now)
        return verifier.appraise(evidence, binding=binding, now=now)

    return appraise
