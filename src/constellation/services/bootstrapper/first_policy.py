"""Which policy a new node begins with: the shown one, which a control plane judges for itself.

A worker's JoinService has proven the join key on this channel, and a worker admits nobody: it keeps
what it was shown. A control plane will admit others by it, so that a release must stand behind it,
judged by the root in this node's own image. Source: design, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.services.offered_policy import read_offer
from constellation.services.release_root import pinned_root
from constellation.trust.policy_acceptance import OfferedPolicy

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from constellation.rpc.stubs import join_pb2
    from constellation.trust.cluster_policy import SignedPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["first_policy"]


def first_policy(
    ticket: join_pb2.JoinTicket,
    shown: SignedPolicy,
    *,
    document: NodeDocument,
    root: Path,
    now: datetime,
) -> OfferedPolicy:
    """Give the policy to keep, judged by this node's document, the root in its image, and `now`.

    Raises:
        Unavailable: the JoinService obeys another policy by now than it has shown: ask again.
        ConstellationError: see `trust.policy_judgement.judge_first`.
    """
    if not ticket.HasField("control_plane"):
        return OfferedPolicy(signed=shown)
    offered = read_offer(ticket.control_plane)
    if offered.signed != shown:
        raise Unavailable("ticket: another cluster policy than the JoinService has shown")
    # what reads release metadata is slow to load, and workers never need it
    from constellation.trust.policy_judgement import Judge, judge_first  # noqa: PLC0415

    judge = Judge(document=document, pinned_root=pinned_root(root), now=now)
    judge_first(offered, judge=judge)
    return offered
