"""Which evidence a cluster accepts now: its releases in their windows, its own nodes, its demands.

One place for CLI, JoinService, KeyService and `verify`: they cannot disagree.
Source: design, sections 6 and 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation import registry
from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.base.errors import Rejected
from constellation.trust.node_document import dump_node_document
from constellation.trust.node_image import shows_image

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from constellation.attestation.model import AttestationResult, Binding, Evidence, Verifier
    from constellation.attestation.node_rules import PlatformDemands
    from constellation.attestation.policy import Policy
    from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = [
    "appraisal_policy",
    "first_node_policy",
    "make_verifier",
    "merged_reference",
    "node_verifier",
    "require_one_image",
]


def node_verifier(
    policy: ClusterPolicy, document: NodeDocument, *, joined: bool, now: datetime
) -> Verifier:
    """Make the verifier of this cluster's nodes; arguments as in `appraisal_policy`.

    Raises:
        Rejected: no release is accepted at this time, or the policy is another cluster's.
    """
    rules = appraisal_policy(policy, document, joined=joined, now=now)
    verifier = make_verifier(
        document, rules=rules, trust_roots=policy.trust_roots, demands=policy.platform
    )
    return _OfOneImage(verifier, policy.releases)


def require_one_image(
    result: AttestationResult, releases: tuple[AcceptedRelease, ...], *, now: datetime
) -> None:
    """Demand that what was shown is one accepted image, not put together from several.

    The rules judge register by register, so that each takes what any accepted image has there.

    Raises:
        Rejected: no release that is accepted now names all of it.
    """
    now_s = int(now.timestamp())
    if not any(r.accepted_at(now_s) and shows_image(result.claims, r) for r in releases):
        names = ", ".join(r.name for r in releases if r.accepted_at(now_s))
        finding = "registers: each is of an accepted image, all together of no one accepted image"
        raise Rejected((f"{finding} ({names})",))


class _OfOneImage:
    """A verifier that accepts whole images only."""

    def __init__(self, inner: Verifier, releases: tuple[AcceptedRelease, ...]) -> None:
        self._inner, self._releases = inner, releases

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """See `Verifier`."""
        result = self._inner.appraise(evidence, binding=binding, now=now)
        require_one_image(result, self._releases, now=now)
        return result


def make_verifier(
    document: NodeDocument,
    *,
    rules: Policy,
    trust_roots: tuple[bytes, ...],
    demands: PlatformDemands | None,
) -> Verifier:
    """Make a verifier with these rules, of the document's variant; it takes no other.

    `trust_roots` (DER) as in `registry.verifier`; a chip's own are the demands'.
    """
    return registry.verifier(
        document.variant,
        policy=rules,
        trust_roots=trust_roots,
        chip_roots=() if demands is None else demands.chip_roots,
    )


def appraisal_policy(
    policy: ClusterPolicy, document: NodeDocument, *, joined: bool, now: datetime
) -> Policy:
    """Give the rules for a node of this cluster.

    Args:
        policy: verified (`cluster_policy.verify_policy`).
        document: this cluster's; its digest must be in the node's registers (PCR 8).
        joined: True: the node must have been given to this cluster (PCR 15); False: to none.
        now: picks the releases whose window covers it.

    Raises:
        Rejected: no release is accepted at this time, or the policy is another cluster's.
    """
    if policy.cluster_id != document.cluster_id:
        raise Rejected(("cluster policy and node document name different clusters",))
    return first_node_policy(
        policy.releases, document, demands=policy.platform, joined=joined, now=now
    )


def first_node_policy(
    releases: tuple[AcceptedRelease, ...],
    document: NodeDocument,
    *,
    demands: PlatformDemands | None,
    joined: bool,
    now: datetime,
) -> Policy:
    """Give the same rules before there is a signed policy: the workstation's, for `init`.

    Raises:
        Rejected: no release is accepted at this time, or the variant lacks what it needs.
    """
    return node_policy(
        document.variant,
        merged_reference(releases, now_s=int(now.timestamp())),
        demands=demands,
        identity=NodeIdentity(
            document=dump_node_document(document),
            cluster_id=document.cluster_id if joined else None,
        ),
    )


def merged_reference(releases: tuple[AcceptedRelease, ...], *, now_s: int) -> ReferenceValues:
    """Give every value that some release accepts at this time (seconds since 1970).

    Raises:
        Rejected: no release's window covers this time, or two releases name different registers
            or claims.
    """
    accepted = [r for r in releases if r.accepted_at(now_s)]
    if not accepted:
        windows = tuple(
            f"release {r.name}: found time {now_s}, expected from {r.not_before} to "
            f"{'any time' if r.not_after is None else r.not_after}"
            for r in releases
        )
        raise Rejected(windows or ("no release is accepted",))
    first = accepted[0]
    if any(
        r.reference.keys() != first.reference.keys() or r.launch.keys() != first.launch.keys()
        for r in accepted
    ):
        raise Rejected(("accepted releases have reference values for different registers",))
    return ReferenceValues(
        registers={n: _union(r.reference[n] for r in accepted) for n in sorted(first.reference)},
        launch={n: _union(r.launch[n] for r in accepted) for n in sorted(first.launch)},
    )


def _union(values: Iterable[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    return tuple(sorted({value for accepted in values for value in accepted}))
