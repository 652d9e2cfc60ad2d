"""May a control plane take this policy? Only if a release, or the policy before, says all of it.

`accept_policy` judges a policy that follows the kept one, by the rules that the CLI made it with
and on a release that the judge verified itself. `confirm_policy` asks what can be asked without the
policy before: by a control plane that joins, or that missed some. The owner alone speaks for what
no release can say: `slots`, `platform`, `provider_access`, `artifact_sources`,
`cloud_integration`. Pure.
Source: design, sections 3 and 6.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import Rejected
from constellation.trust.release_rules import (
    LONGEST_ROLLOUT_S,
    Target,
    accepted_entries,
    earlier_end,
    findings,
    followed_release,
    list_digests,
    release_findings,
    seen_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy
    from constellation.trust.release_chain import VerifiedRelease

__all__ = ["accept_policy", "confirm_policy"]


def accept_policy(
    current: ClusterPolicy,
    proposed: ClusterPolicy,
    verified: VerifiedRelease | None,
    target: Target,
    *,
    now: int,
) -> None:
    """Judge a policy whose signature and serial hold: does a release stand behind all of it?

    Args:
        current: the policy that the judge lives by.
        proposed: the one to follow it.
        verified: the release that the judge verified itself; None: no chain came with it, and
            then the policy may only take away.
        target: the judge's own variant and minimum release; what the policy asks for else.
        now: seconds since 1970.

    Raises:
        Rejected: something in it comes from no release, or the release may not follow.
    """
    reasons: list[str] = []
    allowed = list(current.releases)
    if verified is None:
        reasons += _narrowing_findings(current, proposed)
    else:
        reasons += findings(current, verified, target, now=now)
        if proposed.release != followed_release(current, verified):
            reasons.append("cluster policy: what it says of its release is not what was verified")
        reasons += _content_findings(proposed, verified)
        allowed = accepted_entries(verified, target, now=now)
        allowed += [
            dataclasses.replace(e, not_after=earlier_end(e.not_after, now + LONGEST_ROLLOUT_S))
            for e in current.releases
            if e.image_digest not in {new.image_digest for new in allowed}
        ]
    reasons += _entry_findings(proposed.releases, allowed)
    if reasons:
        raise Rejected(tuple(reasons))


def confirm_policy(
    proposed: ClusterPolicy, verified: VerifiedRelease, target: Target, *, now: int
) -> None:
    """Judge a policy without the one before it: what does the release that it follows say?

    That it may follow a control plane has found that obeyed the one before; see `accept_policy` for
    the arguments. `now` is when the release was fresh.

    Raises:
        Rejected: something in it comes from no release, an image of another release is accepted for
            longer than a roll-out lasts, or the release may not run here; all reasons.
    """
    reasons = [*release_findings(verified, target)]
    stated = proposed.release
    if stated is None or (stated.version, seen_in(stated)) != (
        verified.release.version,
        verified.seen,
    ):
        reasons.append("cluster policy: what it says of its release is not what was verified")
    reasons += _content_findings(proposed, verified)
    new = [e for e in proposed.releases if e.name == verified.release.version]
    if not new:
        reasons.append("cluster policy: no image of the release that it follows")
    reasons += _entry_findings(tuple(new), accepted_entries(verified, target, now=now))
    reasons += [
        f"cluster policy: image {entry.image_digest.hex()[:16]} ({entry.name}) of another release "
        "is accepted for longer than a roll-out lasts"
        for entry in proposed.releases
        if entry not in new
        and (entry.not_after is None or entry.not_after > now + LONGEST_ROLLOUT_S)
    ]
    if reasons:
        raise Rejected(tuple(reasons))


def _content_findings(proposed: ClusterPolicy, verified: VerifiedRelease) -> Iterator[str]:
    lists = list_digests(verified)
    if any(lists.get(v) != digest for v, digest in proposed.artifact_lists.items()):
        yield "cluster policy: an artifact list is not the release's"
    if proposed.services_bundle.hex() != verified.release.services_bundle:
        yield "cluster policy: the services bundle is not the release's"


def _entry_findings(
    entries: tuple[AcceptedRelease, ...], allowed: list[AcceptedRelease]
) -> Iterator[str]:
    for entry in entries:
        if not any(_is_within(entry, other) for other in allowed):
            yield (
                f"cluster policy: image {entry.image_digest.hex()[:16]} ({entry.name}) is accepted "
                "for longer or otherwise than release and policy before allow"
            )


def _narrowing_findings(current: ClusterPolicy, proposed: ClusterPolicy) -> Iterator[str]:
    same = ("release", "kubernetes_version", "services_bundle")
    for name in same:
        if getattr(current, name) != getattr(proposed, name):
            yield f"cluster policy: another {name.replace('_', ' ')}, but no release came with it"
    if not proposed.artifact_lists.items() <= current.artifact_lists.items():
        yield "cluster policy: another artifact list, but no release came with it"


def _is_within(entry: AcceptedRelease, allowed: AcceptedRelease) -> bool:
    """Say whether an entry accepts nothing that `allowed` does not accept."""
    ends_in_time = allowed.not_after is None or (
        entry.not_after is not None and entry.not_after <= allowed.not_after
    )
    return (
        entry.image_digest == allowed.image_digest
        and entry.reference == allowed.reference
        and entry.launch == allowed.launch
        and entry.name == allowed.name
        and entry.not_before >= allowed.not_before
        and ends_in_time
    )
