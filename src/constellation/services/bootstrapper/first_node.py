"""What the first node is, and whether the policy that came back is the one for this run. Pure."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict, FormatError, Rejected
from constellation.kube.cloud_objects import artifact_name
from constellation.kube.membership import (
    GroupSlots,
    Member,
    NodeRole,
    Settings,
)
from constellation.kube.node_record import NodeRecord
from constellation.kube.placement import place_first
from constellation.kube.rollout import Bounds, NodeGroup
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactKind

if TYPE_CHECKING:
    from constellation.providers.protocols import Instance
    from constellation.rpc.stubs import init_pb2
    from constellation.services.bootstrapper.node_keys import NodeKeys
    from constellation.trust.artifact_list import Artifact, ArtifactList
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = [
    "SERVICES_CA_LIFETIME",
    "api_sans",
    "check_policy",
    "cloud_artifact",
    "member",
    "only_image",
    "record",
    "require_me",
    "scaled_groups",
    "settings",
]

SERVICES_CA_LIFETIME = timedelta(days=3650)


def require_me(plan: init_pb2.ClusterPlan, own: Instance) -> None:
    """Check that the owner means this node.

    Raises:
        Conflict: another instance was chosen.
        FormatError: this node is no control plane.
    """
    if plan.instance_id != own.instance_id:
        raise Conflict(
            f"not me: the chosen node is {plan.instance_id[:80]!r}, this is {own.instance_id}"
        )
    roles = {g.name: g.role for g in plan.node_groups}
    if roles.get(own.group) != NodeRole.CONTROL_PLANE:
        raise FormatError(f"plan: group {own.group!r} of this node is no group of control planes")


def settings(plan: init_pb2.ClusterPlan, *, document: NodeDocument) -> Settings:
    """Give the plan as every JoinService will know it.

    Raises:
        FormatError: a role that is none.
    """
    try:
        groups = tuple(
            GroupSlots(name=g.name, role=NodeRole(g.role), size=g.size) for g in plan.node_groups
        )
    except ValueError as error:
        raise FormatError(f"plan: {error}") from None
    return Settings(
        name=plan.name,
        cluster_id=document.cluster_id,
        endpoint=plan.endpoint,
        user_endpoint=plan.user_endpoint,
        api_sans=tuple(plan.api_sans),
        service_cidr=plan.service_cidr,
        pod_cidr=plan.pod_cidr,
        mesh_cidr=plan.mesh_cidr,
        kubernetes_version=plan.kubernetes_version,
        artifact_list=plan.artifact_list,
        groups=groups,
    )


def scaled_groups(plan: init_pb2.ClusterPlan) -> tuple[NodeGroup, ...]:
    """Give the groups that an autoscaler may move from the start, with their bounds.

    Raises:
        FormatError: bounds of control planes, out of order, or that leave out the group's size.
    """
    found = []
    for group in plan.node_groups:
        if not group.min and not group.max:
            continue
        try:
            bounds = Bounds(least=group.min, most=group.max)
            wanted = NodeGroup(
                name=group.name, role=NodeRole(group.role), size=group.size, bounds=bounds
            )
        except ValueError as error:
            raise FormatError(f"plan: group {group.name[:60]!r}: {error}") from None
        if not bounds.least <= wanted.size <= bounds.most:
            raise FormatError(
                f"plan: group {group.name[:60]!r}: size {wanted.size}, "
                f"want {bounds.least} to {bounds.most}"
            )
        found.append(wanted)
    return tuple(found)


def api_sans(plan: init_pb2.ClusterPlan) -> tuple[str, ...]:
    """Give the names and addresses of the API server: the plan's, and both endpoints' hosts."""
    hosts = (e.rpartition(":")[0] for e in (plan.endpoint, plan.user_endpoint))
    return tuple(dict.fromkeys((*plan.api_sans, *hosts)))


def member(
    settings_: Settings,
    *,
    own: Instance,
    attester_id: bytes,
    disk_uuid: bytes,
    keys: NodeKeys,
) -> Member:
    """Give the first node its name and addresses: the first of each."""
    group = next(g for g in settings_.groups if g.name == own.group)
    place = place_first(settings_, group)
    return Member(
        name=place.name,
        instance_id=own.instance_id,
        role=group.role,
        group=group.name,
        attester_id=attester_id,
        address=own.address,
        mesh_address=place.mesh_address,
        pod_cidr=place.pod_cidr,
        disk_uuid=disk_uuid,
        kubelet_client_public_key=keys.kubelet_client,
        kubelet_serving_public_key=keys.kubelet_serving,
        service_public_key=keys.service,
        mesh_public_key=keys.mesh,
        joined=0,
    )


def only_image(policy: ClusterPolicy) -> bytes:
    """Give the image that the first policy accepts: the one that this node was appraised for.

    Its owner appraised this node, then signed the policy. Empty where it accepts several.
    """
    images = {release.image_digest for release in policy.releases}
    return images.pop() if len(images) == 1 else b""


def record(settings_: Settings, member_: Member, *, time: int, provider: str) -> NodeRecord:
    """Give what the node must remember; `time` in seconds since 1970."""
    return NodeRecord(
        name=member_.name,
        instance_id=member_.instance_id,
        role=member_.role,
        group=member_.group,
        address=member_.address,
        mesh_address=member_.mesh_address,
        pod_cidr=member_.pod_cidr,
        pod_network=settings_.pod_cidr,
        mesh_cidr=settings_.mesh_cidr,
        service_cidr=settings_.service_cidr,
        cluster_id=settings_.cluster_id,
        disk_uuid=member_.disk_uuid,
        endpoint=settings_.endpoint,
        kubernetes_version=settings_.kubernetes_version,
        artifact_list=settings_.artifact_list,
        provider=provider,
        time=time,
    )


def cloud_artifact(
    plan: init_pb2.ClusterPlan, artifacts: ArtifactList, *, provider: str
) -> Artifact | None:
    """Give the objects of the provider's own components; None where the owner wants none.

    Raises:
        FormatError: they are wanted, and the list does not name them by digest.
    """
    if not plan.cloud_integration:
        return None
    return artifacts.objects(artifact_name(provider))


def check_policy(
    policy: ClusterPolicy,
    *,
    join_public_key: bytes,
    plan: init_pb2.ClusterPlan,
    artifacts: ArtifactList,
) -> None:
    """Check that the verified policy is about this run: join key, version, artifacts, components.

    Raises:
        Rejected: with everything that differs.
    """
    findings = []
    if policy.join_public_key != join_public_key:
        findings.append("cluster policy: names another join key than this node made")
    if policy.kubernetes_version != plan.kubernetes_version:
        findings.append(
            f"cluster policy: Kubernetes {policy.kubernetes_version}, "
            f"the plan has {plan.kubernetes_version}"
        )
    found = hashlib.sha256(artifact_list.dump(artifacts)).digest()
    wanted = policy.artifact_lists.get(plan.kubernetes_version, b"")
    if found != wanted:
        findings.append(
            f"cluster policy: artifact list {wanted.hex()}, the plan's has {found.hex()}"
        )
    if policy.cloud_integration != plan.cloud_integration:
        findings.append("cluster policy: its word on the cloud's components is not the plan's")
    bundles = {bytes.fromhex(a.sha256) for a in artifacts.of_kind(ArtifactKind.ARCHIVE)}
    if policy.services_bundle not in bundles:
        findings.append(
            f"cluster policy: services bundle {policy.services_bundle.hex()} "
            "is not in the artifact list"
        )
    if findings:
        raise Rejected(tuple(findings))
