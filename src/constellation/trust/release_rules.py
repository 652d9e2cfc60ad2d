"""Which policy may follow which? The windows of an upgrade, and what is refused; pure.

`next_policy` starts a roll-out: old and new images are accepted, the old ones until a stated time.
`finish_policy` ends it: only the new ones. The judgement of whoever is handed such a policy stands
in `accept_rules`, on the findings of this module: one set of rules for both, so that CLI and
JoinService cannot disagree. Source: design, sections 3, 6 and 11.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError, Rejected
from constellation.trust import artifact_list
from constellation.trust.cluster_policy import (
    AcceptedRelease,
    ClusterPolicy,
    PolicyRelease,
    Versions,
)
from constellation.trust.release import is_development, version_order
from constellation.trust.release_chain import NOTHING_SEEN, SeenVersions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.trust.release import ReleaseImage
    from constellation.trust.release_chain import VerifiedRelease

__all__ = [
    "LONGEST_ROLLOUT_S",
    "Target",
    "accepted_entries",
    "earlier_end",
    "findings",
    "finish_policy",
    "followed_release",
    "list_digests",
    "minor_of",
    "next_policy",
    "release_findings",
    "seen_by",
    "seen_in",
]

LONGEST_ROLLOUT_S = 7 * 24 * 3600
"""For so long an old image may still be accepted, at most."""

_KUBERNETES = re.compile(r"v(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_FOR_DEVELOPMENT = frozenset({Variant.LOCAL_VTPM, Variant.QEMU_VTPM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an upgrade goes: whose images, which Kubernetes, and until when the old may rejoin.

    `provider` None: any (a JoinService knows its variant only). `ends_at` is in seconds since 1970.
    """

    provider: str | None
    variant: Variant
    kubernetes: str
    minimum_release: str
    ends_at: int


def seen_by(policy: ClusterPolicy) -> SeenVersions:
    """Give the metadata versions that the holder of this policy has seen."""
    return NOTHING_SEEN if policy.release is None else seen_in(policy.release)


def seen_in(release: PolicyRelease) -> SeenVersions:
    """Give the metadata versions that a policy names."""
    return SeenVersions(
        root=release.root_version,
        timestamp=release.timestamp_version,
        snapshot=release.snapshot_version,
        targets=release.targets_version,
    )


def minor_of(kubernetes: str) -> tuple[int, int]:
    """Give major and minor of "v1.36.2". Raises FormatError."""
    return _numbers(kubernetes)[:2]


def findings(
    current: ClusterPolicy, verified: VerifiedRelease, target: Target, *, now: int
) -> tuple[str, ...]:
    """Say everything that speaks against moving to this release; nothing: it may be done."""
    return (
        *_version_findings(current, verified, target),
        *_kubernetes_findings(current, verified, target),
        *_image_findings(verified, target, now=now),
    )


def next_policy(
    current: ClusterPolicy, verified: VerifiedRelease, target: Target, *, now: int
) -> ClusterPolicy:
    """Give the policy of a roll-out: serial + 1, the new images, the old ones until `ends_at`.

    Raises:
        Rejected: the release may not follow; all reasons.
        ValueError: `ends_at` is not after `now`, or more than seven days after it.
    """
    if not now < target.ends_at <= now + LONGEST_ROLLOUT_S:
        raise ValueError(f"a roll-out ends within {LONGEST_ROLLOUT_S} s")
    if reasons := findings(current, verified, target, now=now):
        raise Rejected(reasons)
    new = accepted_entries(verified, target, now=now)
    names = {entry.image_digest for entry in new}
    old = tuple(
        dataclasses.replace(entry, not_after=earlier_end(entry.not_after, target.ends_at))
        for entry in current.releases
        if entry.image_digest not in names and (entry.not_after is None or now < entry.not_after)
    )
    lists = list_digests(verified)
    wanted = (current.kubernetes_version, target.kubernetes)
    return dataclasses.replace(
        current,
        serial=current.serial + 1,
        releases=(*new, *old),
        artifact_lists={version: lists[version] for version in wanted if version in lists},
        services_bundle=bytes.fromhex(verified.release.services_bundle),
        kubernetes_version=target.kubernetes,
        release=followed_release(current, verified),
    )


def finish_policy(current: ClusterPolicy) -> ClusterPolicy:
    """Give the policy after a roll-out: only what has no end stays; the release stays the same.

    Raises:
        Rejected: no image would be accepted any more.
    """
    kept = tuple(entry for entry in current.releases if entry.name == _version(current))
    if not kept:
        raise Rejected(("the policy accepts no image of the release that it follows",))
    return dataclasses.replace(
        current,
        serial=current.serial + 1,
        releases=kept,
        artifact_lists={
            current.kubernetes_version: current.artifact_lists[current.kubernetes_version]
        },
    )


def release_findings(verified: VerifiedRelease, target: Target) -> Iterator[str]:
    """Say what speaks against a release whatever the cluster had before."""
    release = verified.release
    if release.version in verified.withdrawn:
        yield f"release {release.version} was withdrawn by its publisher"
    if _counted(release.version) < version_order(target.minimum_release):
        yield (
            f"release {release.version} is older than {target.minimum_release}, the oldest that "
            "this cluster's node document allows"
        )
    if is_development(release.version) and target.variant not in _FOR_DEVELOPMENT:
        yield (
            f"release {release.version} was made for development: refused for {target.variant}, "
            "which is not"
        )


def _version_findings(
    current: ClusterPolicy, verified: VerifiedRelease, target: Target
) -> Iterator[str]:
    yield from release_findings(verified, target)
    release, followed = verified.release, current.release
    if followed is None:
        return
    new, old = version_order(release.version), version_order(followed.version)
    versions = Versions(release=release.version, kubernetes=target.kubernetes)
    if new < old and not _goes_back(current, versions):
        yield (
            f"downgrade: the cluster has release {followed.version}, {release.version} is older; "
            f"back goes only to {_told(followed.before)}, by `upgrade rollback`"
        )
    if _counted(followed.version) < version_order(release.minimum_version):
        yield (
            f"release {release.version} can be reached from {release.minimum_version} or newer, "
            f"the cluster has {followed.version}"
        )


def _counted(version: str) -> tuple[int, int, int, int, int]:
    """Order a version against a minimum: a development release counts as what it leads up to."""
    return version_order(version.partition("-")[0])


def _kubernetes_findings(
    current: ClusterPolicy, verified: VerifiedRelease, target: Target
) -> Iterator[str]:
    release = verified.release
    back = _goes_back(current, Versions(release=release.version, kubernetes=target.kubernetes))
    # joining workers get the oldest API server's version until all are new; not on the way back
    wanted = (target.kubernetes,) if back else (current.kubernetes_version, target.kubernetes)
    for version in dict.fromkeys(wanted):
        if version not in release.kubernetes:
            yield (
                f"release {release.version} has no Kubernetes {version}; it has "
                f"{', '.join(sorted(release.kubernetes))}"
            )
    old, new = _numbers(current.kubernetes_version), _numbers(target.kubernetes)
    if new < old and not back:
        yield (
            f"downgrade: the cluster has Kubernetes {current.kubernetes_version}, "
            f"{target.kubernetes} is older"
        )
    if new[0] != old[0] or new[1] > old[1] + 1:
        yield (
            f"Kubernetes {current.kubernetes_version} to {target.kubernetes} skips a minor "
            f"version: go to v{old[0]}.{old[1] + 1} first"
        )


def _image_findings(verified: VerifiedRelease, target: Target, *, now: int) -> Iterator[str]:
    release, images = verified.release, _images(verified, target)
    where = f"{target.provider or 'any provider'}, {target.variant}"
    if not images:
        yield f"release {release.version} has no node image for {where}"
    elif not any(image.reference for image in images):
        yield f"release {release.version}: its image for {where} has no reference values"
    elif not any(entry.accepted_at(now) for entry in accepted_entries(verified, target, now=now)):
        yield f"release {release.version}: no reference values for {where} are valid at this time"


def _images(verified: VerifiedRelease, target: Target) -> tuple[ReleaseImage, ...]:
    return tuple(
        image
        for image in verified.release.images
        if image.variant is target.variant and target.provider in (None, image.provider)
    )


def accepted_entries(
    verified: VerifiedRelease, target: Target, *, now: int
) -> list[AcceptedRelease]:
    """Give the policy's entries for a release: one for each set of values that is not over."""
    return [
        AcceptedRelease(
            name=verified.release.version,
            not_before=values.not_before,
            not_after=values.not_after,
            image_digest=bytes.fromhex(image.sha256),
            reference={n: _bytes_of(accepted) for n, accepted in values.registers.items()},
            launch={n: _bytes_of(accepted) for n, accepted in values.launch.items()},
        )
        for image in _images(verified, target)
        for values in image.reference
        if values.not_after is None or now < values.not_after
    ]


def _bytes_of(values: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(sorted(bytes.fromhex(value) for value in values))


def followed_release(current: ClusterPolicy, verified: VerifiedRelease) -> PolicyRelease:
    """Give what the next policy says of the release that it follows."""
    followed, seen = current.release, verified.seen
    before = None
    if followed is not None:
        before = Versions(release=followed.version, kubernetes=current.kubernetes_version)
    return PolicyRelease(
        version=verified.release.version,
        before=before,
        root_version=seen.root,
        timestamp_version=seen.timestamp,
        snapshot_version=seen.snapshot,
        targets_version=seen.targets,
    )


def list_digests(verified: VerifiedRelease) -> dict[str, bytes]:
    """Give the SHA-256 of a release's artifact lists, by Kubernetes version."""
    return {
        version: hashlib.sha256(artifact_list.dump(listed)).digest()
        for version, listed in verified.release.kubernetes.items()
    }


def earlier_end(not_after: int | None, ends_at: int) -> int:
    """Give the earlier end of a window; None: it had none."""
    return ends_at if not_after is None else min(not_after, ends_at)


def _version(policy: ClusterPolicy) -> str:
    return "" if policy.release is None else policy.release.version


def _goes_back(current: ClusterPolicy, versions: Versions) -> bool:
    """Say whether these are what the policy before this one named: `upgrade rollback`."""
    return current.release is not None and current.release.before == versions


def _told(before: Versions | None) -> str:
    return "nothing" if before is None else f"{before.release} with {before.kubernetes}"


def _numbers(kubernetes: str) -> tuple[int, int, int]:
    match = _KUBERNETES.fullmatch(kubernetes)
    if match is None:
        raise FormatError(f"Kubernetes version {kubernetes[:40]!r}: want v1.2.3")
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch)
