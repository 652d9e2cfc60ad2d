"""May a control plane obey this policy? Its owner says so, and a release stands behind all of it.

1. the owner signed it, its serial is higher, the join key stays    `policy_succession.successor`
2. whoever passes it on may show that a control plane accepted it   `policy_acceptance`
3. its release chain leads from this judge's own pinned root        `release_chain.verify_chain`
4. nothing is in it that no release says, and the release may follow `release_rules`

The acceptance of another control plane stands in for two things that a judge that was off cannot
know: whether the chain was fresh when it mattered (step 3 judges as of that moment), and the
policies in between (step 4 then asks what the release alone answers). Signatures, replay and
content are always judged here, by the keys in this judge's own measured code. Pure. Source: design,
sections 3 and 6; ADR 70.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from constellation.base.errors import Untrusted
from constellation.trust.accept_rules import accept_policy, confirm_policy
from constellation.trust.cluster_policy import verify_policy
from constellation.trust.policy_acceptance import OfferedPolicy, of_offer, verify_acceptance
from constellation.trust.policy_succession import successor
from constellation.trust.release_chain import (
    NOTHING_SEEN,
    SeenVersions,
    VerifiedRelease,
    parse_chain,
    verify_chain,
)
from constellation.trust.release_rules import Target, seen_by

if TYPE_CHECKING:
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.node_document import NodeDocument
    from constellation.trust.policy_acceptance import Acceptance

__all__ = ["Judge", "Judged", "judge_first", "judge_successor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who judges: by its own node document, the root in its own image (TUF metadata), its clock."""

    document: NodeDocument
    pinned_root: bytes
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A policy that may be obeyed, and what is kept of it.

    `offered` has the chain of the release that the policy follows, and the acceptance that came
    with it; `own` is what the judge itself may say of it, where nobody else had said so.
    """

    policy: ClusterPolicy
    offered: OfferedPolicy
    own: Acceptance | None


def judge_successor(
    kept: ClusterPolicy, kept_with: OfferedPolicy, offered: OfferedPolicy, *, judge: Judge
) -> Judged | None:
    """Judge a policy that is to follow the kept one; None: it is the kept one.

    Args:
        kept: the policy that the judge obeys.
        kept_with: the same as it was taken, with chain and acceptance.
        offered: as owner or another control plane handed it in.
        judge: who asks.

    Raises:
        Untrusted: owner, join key or release key did not sign; expired, replayed, a lower serial.
        Rejected: something in it comes from no release, or the release may not follow; all reasons.
        Conflict: another policy with the kept serial.
        FormatError: something cannot be read.
    """
    document = judge.document
    policy = successor(kept, offered.signed, document=document)
    if policy is None:
        return None
    accepted = verify_acceptance(
        offered, join_public_key=kept.join_public_key, cluster_id=document.cluster_id
    )
    target = _target(policy, document)
    if accepted is None:
        now_s = int(judge.now.timestamp())
        verified = _verify(offered.chain, judge, seen=seen_by(kept)) if offered.chain else None
        accept_policy(kept, policy, verified, target, now=now_s)
        if verified is None:  # it takes away: the release and its chain stay the kept ones
            offered = dataclasses.replace(offered, chain=kept_with.chain)
            now_s = _fresh_at(kept, kept_with)
        return Judged(policy=policy, offered=offered, own=of_offer(offered, fresh_at=now_s))
    if policy.release is None:
        accept_policy(kept, policy, None, target, now=int(judge.now.timestamp()))
        return Judged(policy=policy, offered=offered, own=None)
    then = _at(judge, accepted)
    verified = _verify(_chain_of(offered), then, seen=seen_by(kept))
    if policy.serial != kept.serial + 1:
        confirm_policy(policy, verified, target, now=accepted.fresh_at)
    elif policy.release == kept.release:
        accept_policy(kept, policy, None, target, now=accepted.fresh_at)
    else:
        accept_policy(kept, policy, verified, target, now=accepted.fresh_at)
    return Judged(policy=policy, offered=offered, own=None)


def judge_first(offered: OfferedPolicy, *, judge: Judge) -> ClusterPolicy:
    """Judge the policy in a control plane's ticket: the one that it begins with.

    A policy that follows no release needs no chain: it is of the images that the cluster was made
    with, for which the owner alone speaks.

    Raises:
        Untrusted: owner, join key or release key did not sign, or no chain came with it.
        Rejected: something in it comes from no release; all reasons.
        FormatError: something cannot be read.
    """
    document = judge.document
    policy = verify_policy(
        offered.signed,
        owner_public_key=document.owner_public_key,
        cluster_id=document.cluster_id,
        minimum_serial=1,
    )
    if policy.release is None:
        return policy
    accepted = verify_acceptance(
        offered, join_public_key=policy.join_public_key, cluster_id=document.cluster_id
    )
    if accepted is None:
        raise Untrusted("cluster policy: no control plane says that it has judged its release")
    verified = _verify(_chain_of(offered), _at(judge, accepted), seen=NOTHING_SEEN)
    confirm_policy(policy, verified, _target(policy, document), now=accepted.fresh_at)
    return policy


def _verify(chain: bytes, judge: Judge, *, seen: SeenVersions) -> VerifiedRelease:
    return verify_chain(parse_chain(chain), pinned_root=judge.pinned_root, seen=seen, now=judge.now)


def _chain_of(offered: OfferedPolicy) -> bytes:
    if not offered.chain:
        raise Untrusted("cluster policy: it follows a release, but no release chain came with it")
    return offered.chain


def _at(judge: Judge, accepted: Acceptance) -> Judge:
    return dataclasses.replace(judge, now=datetime.fromtimestamp(accepted.fresh_at, UTC))


def _fresh_at(kept: ClusterPolicy, kept_with: OfferedPolicy) -> int:
    """Say when the chain of the kept policy was judged; its own disk says so."""
    accepted = verify_acceptance(
        kept_with, join_public_key=kept.join_public_key, cluster_id=kept.cluster_id
    )
    return 0 if accepted is None else accepted.fresh_at


def _target(policy: ClusterPolicy, document: NodeDocument) -> Target:
    return Target(
        provider=None,
        variant=document.variant,
        kubernetes=policy.kubernetes_version,
        minimum_release=document.minimum_release,
        ends_at=0,
    )
