"""Which nodes the Kubernetes API shows, and whether they are Ready; for people and for waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.cluster.context import KubernetesNode

if TYPE_CHECKING:
    from pathlib import Path

    from lightkube.resources.core_v1 import Node

__all__ = ["list_nodes"]

_DEADLINE_S = 10.0
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


async def list_nodes(kubeconfig: Path) -> tuple[KubernetesNode, ...]:
    """List the nodes of the cluster that `kubeconfig` names, sorted by name.

    Raises:
        Unavailable: the API server does not answer.
    """
    # half a second of imports, for the few commands that need them
    import httpx2  # noqa: PLC0415
    from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415
    from lightkube.core.exceptions import ApiError, LoadResourceError  # noqa: PLC0415
    from lightkube.resources.core_v1 import Node  # noqa: PLC0415

    try:
        async with asyncio.timeout(_DEADLINE_S):
            client = AsyncClient(config=KubeConfig.from_file(kubeconfig), trust_env=False)
            nodes = [_node(node) async for node in client.list(Node)]
    except (ApiError, LoadResourceError, httpx2.HTTPError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"the Kubernetes API does not answer: {str(error) or type(error).__name__}",
            hint="`constellation status` says which node is missing",
        ) from error
    return tuple(sorted(nodes, key=lambda n: n.name))


def _node(node: Node) -> KubernetesNode:
    metadata, status = node.metadata, node.status
    conditions = (status.conditions if status else None) or []
    ready = next((c for c in conditions if c.type == "Ready"), None)
    labels = (metadata.labels if metadata else None) or {}
    addresses = (status.addresses if status else None) or []
    return KubernetesNode(
        name=(metadata.name if metadata else None) or "",
        role="control-plane" if _CONTROL_PLANE in labels else "worker",
        ready=ready is not None and ready.status == "True",
        version=status.nodeInfo.kubeletVersion if status and status.nodeInfo else "",
        address=next((a.address for a in addresses if a.type == "InternalIP"), ""),
        reason=(ready.message or "") if ready is not None and ready.status != "True" else "",
    )
