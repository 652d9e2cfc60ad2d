"""May this JoinService be told anything? Six checks on what it showed, before the node asks.

A joining node knows only its node document, so the policy comes from the server itself and the
server's evidence can be judged only once that policy was verified: the handshake keeps the
evidence, this module judges it. Source: design, section 6 ("A joining node to a JoinService").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.trust.appraisal import node_verifier
from constellation.trust.channel_proof import verify_join_channel
from constellation.trust.cluster_policy import SignedPolicy, verify_policy

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["JudgedServer", "Shown", "judge_join_server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Everything that a JoinService showed on one channel.

    `evidence` is its own, for purpose `join-server`, and `binding` what this end of the channel
    demands of it; `exporter` has 32 bytes (label `JOIN_CHANNEL_LABEL`), from this end as well.
    """

    evidence: Evidence
    binding: Binding
    policy: SignedPolicy
    channel_signature: bytes
    exporter: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedServer:
    """A JoinService of this node's own cluster; `policy` is verified, `result` appraised."""

    policy: ClusterPolicy
    result: AttestationResult


def judge_join_server(
    shown: Shown, *, document: NodeDocument, minimum_serial: int, now: datetime
) -> JudgedServer:
    """Go through the checks in order; the first that fails ends it.

    1. The policy is signed by the document's owner key, for its clusterID, and not older than one
       that this node has seen.
    2. The exporter of this channel is signed by the policy's join key.
    3. The evidence is of the document's variant (its verifier takes no other),
    4. authentic under the policy's trust roots, for this channel and purpose (the binding),
    5. its registers are in the policy, and PCR 8 equals the digest of this node's document,
    6. PCR 15 is this cluster's.

    Raises:
        Untrusted: policy, channel or evidence are not authentic.
        Rejected: authentic, but not what this cluster runs; with every finding.
        FormatError: something cannot be read.
    """
    policy = verify_policy(
        shown.policy,
        owner_public_key=document.owner_public_key,
        cluster_id=document.cluster_id,
        minimum_serial=minimum_serial,
    )
    verify_join_channel(
        policy.join_public_key,
        shown.channel_signature,
        exporter=shown.exporter,
        cluster_id=document.cluster_id,
    )
    verifier = node_verifier(policy, document, joined=True, now=now)
    result = verifier.appraise(shown.evidence, binding=shown.binding, now=now)
    return JudgedServer(policy=policy, result=result)
