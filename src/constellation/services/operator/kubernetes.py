"""The Kubernetes half of the operator's world: every call to the API that it makes, but the Lease.

Rights: nodes get list patch delete · pods list, pods/eviction create · endpointslices list ·
configmaps kubeadm-config get patch · deployments coredns get · clusterreleases, nodegroups get list
create patch. What comes back decides nothing about trust.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.policy_v1 import Eviction
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod
from lightkube.resources.core_v1 import Pod as PodResource
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.types import PatchType

from constellation.base.errors import Conflict, FormatError
from constellation.kube.client import raise_ours, status_of
from constellation.kube.cloud_ownership import DIGEST_ANNOTATION
from constellation.kube.cluster_release import (
    API_GROUP,
    API_VERSION,
    LEAVING_TAINT,
    RELEASE_NAME,
    dump_group,
    dump_order,
    dump_report,
    group_object_name,
    parse_group,
    parse_orders,
    parse_reports,
)
from constellation.kube.objects import KUBERNETES_ANNOTATION
from constellation.services.operator import ports
from constellation.services.operator.facts import Components, KubeNode

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from constellation.kube.cluster_release import Order, Report
    from constellation.kube.rollout import NodeGroup

__all__ = ["Kubernetes"]

_SPACE = "kube-system"
_LEAVING_MARK = "constellation.internal/leaving"
_RBAC_MARK = "constellation.internal/rbac"
_MIRROR = "kubernetes.io/config.mirror"
_ENDED = frozenset({"Succeeded", "Failed"})
_CONFIG = "ClusterConfiguration"
_VERSION_LINE = re.compile(
    r"^kubernetesVersion: (v[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})$", re.MULTILINE
)

_ClusterRelease = create_global_resource(
    API_GROUP, API_VERSION, "ClusterRelease", "clusterreleases"
)
_NodeGroup = create_global_resource(API_GROUP, API_VERSION, "NodeGroup", "nodegroups")


class Kubernetes:
    """Calls to the Kubernetes API; each raises Unavailable, FormatError."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def nodes(self) -> tuple[KubeNode, ...]:
        """List Node objects."""
        found = []
        with raise_ours():
            async for node in self._client.list(Node):
                name = node.metadata.name if node.metadata else None
                if name:
                    found.append(_node(node, name))
        return tuple(found)

    async def is_leaving(self, name: str) -> bool:
        """Say whether a node is marked to be removed; absent: no."""
        with raise_ours():
            try:
                return _node(await self._client.get(Node, name=name), name).leaving
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)
                return False

    async def mark_leaving(self, name: str) -> None:
        """Cordon a node, taint and mark it."""
        with raise_ours():
            try:
                node = await self._client.get(Node, name=name)
                kept = [
                    t.to_dict()
                    for t in ((node.spec.taints if node.spec else None) or [])
                    if t.key != LEAVING_TAINT
                ]
                taint = {"key": LEAVING_TAINT, "effect": "NoSchedule", "value": "constellation"}
                await self._patch(
                    Node,
                    name,
                    {
                        "metadata": {"annotations": {_LEAVING_MARK: "true"}},
                        "spec": {"unschedulable": True, "taints": [*kept, taint]},
                    },
                )
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)

    async def pods_to_leave(self, node: str) -> tuple[ports.Pod, ...]:
        """List pods on a node, but mirror pods, those of DaemonSets, and those that ended."""
        found = []
        with raise_ours():
            async for pod in self._pods(node):
                meta = pod.metadata
                if meta is not None and meta.name and _must_leave(pod):
                    found.append(
                        ports.Pod(
                            namespace=meta.namespace or "",
                            name=meta.name,
                            ending=meta.deletionTimestamp is not None,
                        )
                    )
        return tuple(found)

    async def evict(self, pod: ports.Pod) -> bool:
        """Ask a pod to go; False: a budget does not allow it now (429)."""
        eviction = Eviction(metadata=ObjectMeta(name=pod.name, namespace=pod.namespace))
        with raise_ours():
            try:
                await self._client.create(
                    PodResource.Eviction(metadata=eviction.metadata),
                    pod.name,
                    namespace=pod.namespace,
                )
            except ApiError as error:
                if status_of(error) == HTTPStatus.TOO_MANY_REQUESTS:
                    return False
                _unless(HTTPStatus.NOT_FOUND, error)
        return True

    async def endpoints_on(self, node: str) -> int:
        """Count endpoints on a node whose pods are not on it any more, or end."""
        staying = set()
        with raise_ours():
            async for pod in self._pods(node):
                if pod.metadata is not None and not _must_leave(pod):
                    staying.add((pod.metadata.namespace, pod.metadata.name))
            count = 0
            async for slice_ in self._client.list(EndpointSlice, namespace="*"):
                for endpoint in slice_.endpoints or []:
                    target = endpoint.targetRef
                    own = target is not None and (target.namespace, target.name) in staying
                    count += endpoint.nodeName == node and not own
        return count

    async def delete_node(self, name: str) -> None:
        """Delete a Node object; absent is fine."""
        with raise_ours():
            try:
                await self._client.delete(Node, name=name)
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)

    async def components(self) -> Components:
        """Give the versions of ConfigMaps, CoreDNS and RBAC; without a mark: the ConfigMap's."""
        with raise_ours():
            config = await self._client.get(ConfigMap, name="kubeadm-config", namespace=_SPACE)
            _, version = _configured(config)
            marks = (config.metadata.annotations if config.metadata else None) or {}
            dns = ""
            try:
                found = await self._client.get(Deployment, name="coredns", namespace=_SPACE)
                noted = (found.metadata.annotations if found.metadata else None) or {}
                dns = noted.get(KUBERNETES_ANNOTATION, version)
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)
        return Components(
            config_maps=version,
            core_dns=dns,
            rbac=marks.get(_RBAC_MARK, version),
            cloud_objects=marks.get(DIGEST_ANNOTATION, ""),
        )

    async def set_config_maps(self, kubernetes: str) -> None:
        """Set `kubernetesVersion`; RBAC stays marked with the version that it is of."""
        with raise_ours():
            config = await self._client.get(ConfigMap, name="kubeadm-config", namespace=_SPACE)
            text, before = _configured(config)
            marks = (config.metadata.annotations if config.metadata else None) or {}
            rbac = marks.get(_RBAC_MARK, before)
            text = _VERSION_LINE.sub(f"kubernetesVersion: {kubernetes}", text)
            await self._patch(
                ConfigMap,
                "kubeadm-config",
                {"metadata": {"annotations": {_RBAC_MARK: rbac}}, "data": {_CONFIG: text}},
                namespace=_SPACE,
            )

    async def mark_rbac(self, kubernetes: str) -> None:
        """Note which version RBAC is of."""
        patch = {"metadata": {"annotations": {_RBAC_MARK: kubernetes}}}
        with raise_ours():
            await self._patch(ConfigMap, "kubeadm-config", patch, namespace=_SPACE)

    async def groups(self) -> tuple[NodeGroup, ...]:
        """Give the groups as wanted, by name."""
        found = []
        with raise_ours():
            async for item in self._client.list(_NodeGroup):
                name = item.metadata.name if item.metadata else ""
                version = (item.metadata.resourceVersion if item.metadata else "") or ""
                found.append(
                    parse_group(item.get("spec"), what=f"NodeGroup {name}", version=version)
                )
        if len({g.name for g in found}) != len(found):
            raise FormatError("NodeGroup: two objects are of the same group")
        return tuple(sorted(found, key=lambda g: g.name))

    async def create_group(self, group: NodeGroup) -> None:
        """Write a group's object; there already is fine."""
        spec = {key: value for key, value in dump_group(group).items() if value is not None}
        body = _NodeGroup(metadata=ObjectMeta(name=group_object_name(group.name)), spec=spec)
        with raise_ours():
            try:
                await self._client.create(body)
            except ApiError as error:
                _unless(HTTPStatus.CONFLICT, error)

    async def change_group(self, group: NodeGroup) -> None:
        """Write a group that was read before. Raises Conflict: somebody else wrote it meanwhile."""
        patch = {"metadata": {"resourceVersion": group.version}, "spec": dump_group(group)}
        with raise_ours():
            try:
                await self._patch(_NodeGroup, group_object_name(group.name), patch)
            except ApiError as error:
                _unless(HTTPStatus.CONFLICT, error)
                raise Conflict(
                    f"NodeGroup {group.name} was changed by somebody else meanwhile"
                ) from error

    async def set_provider_id(self, node: str, provider_id: str) -> None:
        """Say which machine a Node is, where nobody did; the API lets it be said once."""
        with raise_ours():
            try:
                await self._patch(Node, node, {"spec": {"providerID": provider_id}})
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)

    async def orders(self) -> tuple[dict[str, Order], dict[str, Report]]:
        """Give all orders and reports, by node."""
        with raise_ours():
            try:
                found = await self._client.get(_ClusterRelease, name=RELEASE_NAME)
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)
                return {}, {}
        return parse_orders(found.get("spec")), parse_reports(found.get("status"))

    async def order(self, node: str, order: Order | None) -> None:
        """Write an order, or take it back together with its report."""
        patch: dict[str, Any] = {"spec": {"orders": {node: dump_order(order)}}}
        if order is None:
            patch["status"] = {"reports": {node: None}}
        await self._patch_release(patch)

    async def report(self, node: str, report: Report) -> None:
        """Write what became of a node's order."""
        await self._patch_release({"status": {"reports": {node: dump_report(report)}}})

    async def write_status(self, status: dict[str, Any]) -> None:
        """Write what people are shown; reports of nodes stay."""
        await self._patch_release({"status": status})

    async def _patch_release(self, patch: dict[str, Any]) -> None:
        with raise_ours():
            try:
                await self._patch(_ClusterRelease, RELEASE_NAME, patch)
            except ApiError as error:
                _unless(HTTPStatus.NOT_FOUND, error)
                await self._client.create(
                    _ClusterRelease(metadata=ObjectMeta(name=RELEASE_NAME), spec={"orders": {}})
                )
                await self._patch(_ClusterRelease, RELEASE_NAME, patch)

    async def _patch(
        self, kind: Any, name: str, patch: dict[str, Any], *, namespace: str | None = None
    ) -> None:
        await self._client.patch(kind, name, patch, namespace=namespace, patch_type=PatchType.MERGE)

    def _pods(self, node: str) -> Any:
        return self._client.list(Pod, namespace="*", fields={"spec.nodeName": node})


def _node(node: Node, name: str) -> KubeNode:
    addresses = (node.status.addresses if node.status else None) or []
    conditions = (node.status.conditions if node.status else None) or []
    taints = (node.spec.taints if node.spec else None) or []
    marks = (node.metadata.annotations if node.metadata else None) or {}
    info = node.status.nodeInfo if node.status else None
    return KubeNode(
        name=name,
        address=next((a.address for a in addresses if a.type == "InternalIP"), ""),
        ready=any(c.type == "Ready" and c.status == "True" for c in conditions),
        kubelet=info.kubeletVersion if info is not None else "",
        provider_id=(node.spec.providerID if node.spec else None) or "",
        leaving=_LEAVING_MARK in marks and any(t.key == LEAVING_TAINT for t in taints),
    )


def _must_leave(pod: Pod) -> bool:
    marks = (pod.metadata.annotations if pod.metadata else None) or {}
    owners = (pod.metadata.ownerReferences if pod.metadata else None) or []
    ended = pod.status is not None and pod.status.phase in _ENDED
    return not (ended or _MIRROR in marks or any(o.kind == "DaemonSet" for o in owners))


def _configured(config: ConfigMap) -> tuple[str, str]:
    """Give kubeadm's configuration (YAML as kubeadm writes it) and the version in it."""
    text = (config.data or {}).get(_CONFIG, "")
    found = _VERSION_LINE.findall(text)
    if len(found) != 1:
        raise FormatError(f"kubeadm-config: {len(found)} lines of kubernetesVersion, want one")
    return text, found[0]


def _unless(status: HTTPStatus, error: ApiError) -> None:
    if status_of(error) != status:
        raise error
