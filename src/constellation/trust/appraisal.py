"""Which evidence a cluster accepts now: its releases in their windows, its own PCR 8 and 15.

One function for CLI, JoinService and `verify`: they cannot disagree. Source: design, 6 and 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.attestation.platforms import local_vtpm
from constellation.base.errors import Rejected
from constellation.trust.node_document import dump_node_document, node_document_digest

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.attestation.policy import Policy
    from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["appraisal_policy", "first_node_policy", "merged_reference"]


def appraisal_policy(
    policy: ClusterPolicy, document: NodeDocument, *, joined: bool, now: datetime
) -> Policy:
    """Give the rules for a node of this cluster.

    Args:
        policy: verified (`cluster_policy.verify_policy`).
        document: this cluster's; its digest must be in PCR 8.
        joined: True: PCR 15 must hold this cluster's value; False: it must be zero.
        now: picks the releases whose window covers it.

    Raises:
        Rejected: no release is accepted at this time, or the policy is another cluster's.
    """
    if policy.cluster_id != document.cluster_id:
        raise Rejected(("cluster policy and node document name different clusters",))
    return first_node_policy(policy.releases, document, joined=joined, now=now)


def first_node_policy(
    releases: tuple[AcceptedRelease, ...], document: NodeDocument, *, joined: bool, now: datetime
) -> Policy:
    """Give the same rules before there is a signed policy: the workstation's, for `init`.

    Raises:
        Rejected: no release is accepted at this time, or the variant has no rules.
    """
    if document.variant is not Variant.LOCAL_VTPM:
        raise Rejected((f"variant {document.variant}: this build has no rules for it",))
    return local_vtpm.policy(
        merged_reference(releases, now_s=int(now.timestamp())),
        node_document_digest=node_document_digest(dump_node_document(document)),
        cluster_id=document.cluster_id if joined else None,
    )


def merged_reference(
    releases: tuple[AcceptedRelease, ...], *, now_s: int
) -> dict[int, tuple[bytes, ...]]:
    """Give, for each PCR, every value that some release accepts at this time (seconds since 1970).

    Raises:
        Rejected: no release's window covers this time, or two releases name different registers.
    """
    accepted = [r for r in releases if r.accepted_at(now_s)]
    if not accepted:
        windows = tuple(
            f"release {r.name}: found time {now_s}, expected from {r.not_before} to "
            f"{'any time' if r.not_after is None else r.not_after}"
            for r in releases
        )
        raise Rejected(windows or ("no release is accepted",))
    registers = accepted[0].reference.keys()
    if any(r.reference.keys() != registers for r in accepted):
        raise Rejected(("accepted releases have reference values for different registers",))
    return {
        n: tuple(sorted({value for r in accepted for value in r.reference[n]}))
        for n in sorted(registers)
    }
