"""May this node's static pods go to that version? The signed policy on its disk decides. Pure.

The caller only says which policy it means, so that an order of yesterday is not obeyed today. What
is refused: another serial than the kept one, another version than the policy's, an artifact list
whose digest the policy does not name, a version that is older or skips a minor one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, FormatError, Rejected
from constellation.kube.cloud_objects import artifact_name
from constellation.kube.rollout import version_order
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactKind

if TYPE_CHECKING:
    from constellation.trust.artifact_list import Artifact, ArtifactList
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = [
    "Target",
    "image_tag",
    "judge_components",
    "judge_list",
    "judge_target",
    "judge_version",
    "needed",
]

_IMAGE = re.compile(
    r"""^\s*-?\s*image:\s*["']?[^\s"']+:([A-Za-z0-9._-]{1,100})["']?\s*$""", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a caller asks for: the policy by its serial, and Kubernetes ("v1.36.2")."""

    policy_serial: int
    kubernetes: str


def judge_target(target: Target, *, policy: ClusterPolicy) -> None:
    """Compare an order with the policy that this node keeps.

    Raises:
        Conflict: the kept policy has another serial; the order is old, or the policy not here yet.
        Rejected: the policy names another version.
    """
    if target.policy_serial != policy.serial:
        raise Conflict(
            f"the order is of policy {target.policy_serial}, this node obeys {policy.serial}"
        )
    if target.kubernetes != policy.kubernetes_version:
        found, wanted = target.kubernetes[:40], policy.kubernetes_version
        raise Rejected(
            (f"Kubernetes: found {found!r}, expected {wanted} of policy {policy.serial}",)
        )


def judge_list(data: bytes, *, target: Target, policy: ClusterPolicy) -> ArtifactList:
    """Check an artifact list by the digest in the policy, then read it.

    Raises:
        Rejected: the policy names another one.
        FormatError: it is named and cannot be read, or is of another version.
    """
    found = hashlib.sha256(data).hexdigest()
    expected = policy.artifact_lists[target.kubernetes].hex()
    if found != expected:
        raise Rejected((f"artifact list: found SHA-256 {found}, expected {expected}",))
    listed = artifact_list.parse(data)
    if listed.kubernetes_version != target.kubernetes:
        raise FormatError(f"artifact list of {listed.kubernetes_version}, want {target.kubernetes}")
    return listed


def judge_components(listed: ArtifactList, *, provider: str) -> Artifact:
    """Give the objects of the cloud's own components, of a list that was judged.

    Raises:
        FormatError: the owner wants them, and the list does not name them.
    """
    return listed.objects(artifact_name(provider))


def judge_version(running: str, *, target: Target) -> None:
    """Check that an API server may go from one version to the other (Version Skew Policy).

    Raises:
        Conflict: back, or over a minor version.
    """
    old, new = version_order(running), version_order(target.kubernetes)
    if new < old:
        raise Conflict(f"API server {running} does not go back to {target.kubernetes}")
    if new[0] != old[0] or new[1] > old[1] + 1:
        raise Conflict(f"API server {running} to {target.kubernetes} skips a minor version")


def needed(listed: ArtifactList) -> tuple[Artifact, ...]:
    """Give what an upgrade on the spot uses: kubeadm, and the images."""
    return (listed.get("kubeadm"), *listed.of_kind(ArtifactKind.IMAGE))


def image_tag(manifest: bytes) -> str:
    """Give the tag of a static pod's image. Raises FormatError."""
    found = _IMAGE.findall(manifest.decode(errors="replace"))
    if len(set(found)) != 1:
        raise FormatError(f"static pod: {len(set(found))} image tags, want one")
    return str(found[0])
