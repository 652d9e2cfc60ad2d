"""Whether a cluster policy may take the place of the one that is obeyed: only a newer one; pure.

Whoever keeps a policy decides this for itself, from its own node document and its own disk: it does
not matter who hands the new one over. A control plane asks for the release as well
(`policy_judgement`). Source: design, section 6 ("serials only grow").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, Rejected
from constellation.trust.cluster_policy import verify_policy

if TYPE_CHECKING:
    from constellation.trust.cluster_policy import ClusterPolicy, SignedPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["successor"]


def successor(
    kept: ClusterPolicy, offered: SignedPolicy, *, document: NodeDocument
) -> ClusterPolicy | None:
    """Give the policy that is to be kept from now on, None if it is the one that is kept.

    Raises:
        Untrusted: the owner did not sign it for this cluster, or its serial is lower.
        Conflict: another policy with the same serial is kept.
        Rejected: it names another join key, so that nobody here could prove to be a JoinService; or
            other trust roots, so that evidence of machines that somebody made up would be genuine.
        FormatError: signed, but not a cluster policy.
    """
    policy = verify_policy(
        offered,
        owner_public_key=document.owner_public_key,
        cluster_id=document.cluster_id,
        minimum_serial=kept.serial,
    )
    if policy.serial == kept.serial:
        if policy != kept:
            raise Conflict(
                f"cluster policy: another one with serial {kept.serial} is obeyed here",
                hint=f"sign it with serial {kept.serial + 1}",
            )
        return None
    if policy.join_public_key != kept.join_public_key:
        raise Rejected(
            (f"cluster policy {policy.serial}: names another join key than this cluster's",)
        )
    if policy.trust_roots != kept.trust_roots:
        raise Rejected(
            (f"cluster policy {policy.serial}: names other trust roots than the first policy",)
        )
    return policy
