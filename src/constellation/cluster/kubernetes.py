"""What the Kubernetes API shows: nodes, and what the operator reports; how many it is asked for.

For people and for waiting; nothing of it decides about trust.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from constellation.base.errors import FormatError, Unavailable, UserError
from constellation.cluster.context import KubernetesNode
from constellation.kube.cloud_ownership import DIGEST_ANNOTATION
from constellation.kube.cluster_release import (
    API_GROUP,
    API_VERSION,
    RELEASE_NAME,
    group_object_name,
    parse_status,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from lightkube import AsyncClient
    from lightkube.resources.core_v1 import Node

    from constellation.kube.cluster_release import ReleaseStatus
    from constellation.kube.rollout import Bounds

__all__ = ["ask_api", "list_nodes", "read_cloud_objects", "read_status", "set_group_size"]

_DEADLINE_S = 10.0
_NOT_FOUND = 404
_REFUSED = (401, 403)
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


async def list_nodes(kubeconfig: Path) -> tuple[KubernetesNode, ...]:
    """List the nodes of the cluster that `kubeconfig` names, sorted by name.

    Raises:
        Unavailable: the API server does not answer, or refuses the kubeconfig's identity.
        UserError: it is no kubeconfig.
    """
    # half a second of imports, for the few commands that need them
    import httpx2  # noqa: PLC0415
    from lightkube.core.exceptions import ApiError, LoadResourceError  # noqa: PLC0415
    from lightkube.resources.core_v1 import Node  # noqa: PLC0415

    try:
        async with asyncio.timeout(_DEADLINE_S), _client(kubeconfig) as client:
            nodes = [_node(node) async for node in client.list(Node)]
    except (ApiError, LoadResourceError, httpx2.HTTPError, OSError, TimeoutError) as error:
        if isinstance(error, ApiError) and error.status.code in _REFUSED:
            raise _refused(kubeconfig, error.status.message) from error
        raise Unavailable(
            f"the Kubernetes API does not answer: {str(error) or type(error).__name__}",
            hint="`constellation status` says which node is missing",
        ) from error
    return tuple(sorted(nodes, key=lambda n: n.name))


async def read_status(kubeconfig: Path) -> ReleaseStatus | None:
    """Read what the operator reports of a roll-out; None: nothing yet.

    Raises:
        Unavailable: the API server does not answer, or the report is none.
    """
    from lightkube.generic_resource import create_global_resource  # noqa: PLC0415 - see above

    kind = create_global_resource(API_GROUP, API_VERSION, "ClusterRelease", "clusterreleases")
    found = await ask_api(kubeconfig, lambda client: client.get(kind, RELEASE_NAME))
    try:
        return parse_status(found.status if found is not None else None)
    except FormatError as error:
        raise Unavailable(f"the operator's report cannot be read: {error}") from error


async def read_cloud_objects(kubeconfig: Path) -> str:
    """Read which objects of the cloud's components were applied (SHA-256); empty: none.

    Raises:
        Unavailable: the API server does not answer.
    """
    from lightkube.resources.core_v1 import ConfigMap  # noqa: PLC0415 - see above

    found = await ask_api(
        kubeconfig, lambda client: client.get(ConfigMap, "kubeadm-config", namespace="kube-system")
    )
    marks = (found.metadata.annotations if found is not None and found.metadata else None) or {}
    return str(marks.get(DIGEST_ANNOTATION, ""))


async def set_group_size(kubeconfig: Path, group: str, size: int, *, bounds: Bounds | None) -> None:
    """Ask the operator for so many nodes of a group; `bounds` None: nobody else may.

    Raises:
        Unavailable: the API server does not answer, or the operator has not made the group yet.
    """
    from lightkube.generic_resource import create_global_resource  # noqa: PLC0415 - see above
    from lightkube.types import PatchType  # noqa: PLC0415 - see above

    kind = create_global_resource(API_GROUP, API_VERSION, "NodeGroup", "nodegroups")
    name = group_object_name(group)
    least, most = (bounds.least, bounds.most) if bounds is not None else (None, None)
    spec = {"spec": {"size": size, "min": least, "max": most}}
    patched = await ask_api(
        kubeconfig, lambda client: client.patch(kind, name, spec, patch_type=PatchType.MERGE)
    )
    if patched is None:
        raise Unavailable(
            f"the cluster has no NodeGroup {name} yet", hint="the operator makes it; try again"
        )


async def ask_api(kubeconfig: Path, call: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    """Make one call; None: there is no such object, or no such kind yet. Raises Unavailable."""
    import httpx2  # noqa: PLC0415 - see above
    from lightkube.core.exceptions import ApiError  # noqa: PLC0415 - see above

    try:
        async with asyncio.timeout(_DEADLINE_S), _client(kubeconfig) as client:
            return await call(client)
    except ApiError as error:
        if error.status.code == _NOT_FOUND:
            return None
        if error.status.code in _REFUSED:
            raise _refused(kubeconfig, error.status.message) from error
        raise Unavailable(f"the Kubernetes API: {error.status.message}") from error
    except (httpx2.HTTPError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"the Kubernetes API does not answer: {str(error) or type(error).__name__}"
        ) from error


@contextlib.asynccontextmanager
async def _client(kubeconfig: Path) -> AsyncIterator[AsyncClient]:
    """Make a client of a file on the user's disk. Raises UserError: it is no kubeconfig."""
    from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415 - see above

    try:
        client = AsyncClient(config=KubeConfig.from_file(kubeconfig), trust_env=False)
    except Exception as error:  # of the file, by three libraries
        raise UserError(
            f"cannot be used: {type(error).__name__}",
            where=str(kubeconfig),
            hint="put your copy of the administrator's kubeconfig back",
        ) from error
    try:
        yield client
    finally:
        await client.close()


def _refused(kubeconfig: Path, why: str | None) -> Unavailable:
    return Unavailable(
        f"the Kubernetes API refuses {kubeconfig.name}: {why or 'no reason given'}",
        hint="it is another cluster's, or its certificate has expired: it is good for a year",
    )


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
