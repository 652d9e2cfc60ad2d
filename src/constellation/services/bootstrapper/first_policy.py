"""Which policy a new node begins with: the shown one, which a control plane judges for itself.

A worker's JoinService has proven the join key on this channel, and a worker admits nobody: it keeps
what it was shown. A control plane will admit others by it, so that a release must stand behind it,
judged by the root in this node's own image. Source: design, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.services.offered_policy import read_offer
from constellation.trust.policy_acceptance import OfferedPolicy
from constellation.trust.policy_judgement import judge_first

if TYPE_CHECKING:
    from constellation.rpc.stubs import join_pb2
    from constellation.trust.cluster_policy import SignedPolicy
    from constellation.trust.policy_judgement import Judge

__all__ = ["first_policy"]


def first_policy(
    ticket: join_pb2.JoinTicket, shown: SignedPolicy, *, judge: Judge
) -> OfferedPolicy:
    """Give the policy to keep, judged.

    Raises:
        Unavailable: the JoinService obeys another policy by now than it has shown: ask again.
        ConstellationError: see `trust.policy_judgement.judge_first`.
    """
    if not ticket.HasField("control_plane"):
        return OfferedPolicy(signed=shown)
    offered = read_offer(ticket.control_plane)
    if offered.signed != shown:
        raise Unavailable("ticket: another cluster policy than the JoinService has shown")
    judge_first(offered, judge=judge)
    return offered
