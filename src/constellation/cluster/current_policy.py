"""Which policy the cluster lives by, as this workstation signed it last; which serial is next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Conflict
from constellation.trust.cluster_policy import verify_policy
from constellation.trust.node_document import parse_node_document

if TYPE_CHECKING:
    from constellation.config.state import State
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["current_policy", "next_serial"]


def current_policy(state: State) -> ClusterPolicy:
    """Give the policy that the cluster lives by.

    Raises:
        Conflict: the cluster was not initialised.
        Untrusted: the state file's policy is not the owner's.
    """
    if state.policy is None:
        raise Conflict("the cluster was not initialised", hint="run `constellation init`")
    document = parse_node_document(state.node_document)
    return verify_policy(
        state.policy,
        owner_public_key=document.owner_public_key,
        cluster_id=document.cluster_id,
        minimum_serial=state.policy_serial,
    )


def next_serial(state: State, policy: ClusterPolicy) -> int:
    """Give the next serial: above the policy's, and none that was signed before."""
    return max(policy.serial, state.signed_serial) + 1
