"""Which Kubernetes runs where, look by look: is the version invariant ever broken in a roll-out?

Kubelets say their own version in the Node object; an API server's is what it answered when the
leading operator asked it at its own address (`ClusterRelease`). What is judged is
`kube.rollout.violations`, the planner's own invariant.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from constellation.kube.membership import NodeRole
from constellation.kube.rollout import Health, NodeView, Observed, violations

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = ["Versions", "seen"]

_EVERY_S = 3.0


class Versions:
    """Looks every three seconds at most; `changes`: when an API server that was there was new."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._next = 0.0
        self._servers: dict[str, str] = {}
        self.looks, self.violations, self.changes = 0, list[str](), list[float]()

    def look(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        got = self._workspace.kubectl(
            "get", "nodes,clusterreleases", "-o", "json", "--request-timeout=10s"
        )
        if got.returncode != 0:
            return
        nodes = seen(json.loads(got.stdout)["items"], before=self._servers)
        servers = {n.name: n.api_server for n in nodes if n.api_server}
        self.changes += [
            now for name, version in servers.items() if self._servers.get(name, version) != version
        ]
        self._servers = servers
        self.looks += 1
        found = violations(
            Observed(nodes=nodes, snapshot=True, config_maps="", core_dns="", rbac="")
        )
        self.violations += [v for v in found if v not in self.violations]


def seen(items: list[dict[str, Any]], *, before: dict[str, str]) -> tuple[NodeView, ...]:
    """Give all nodes; an API server that does not answer counts with what it was `before`."""
    servers = dict(before)
    for release in (i for i in items if i["kind"] == "ClusterRelease"):
        said = release.get("status", {}).get("nodes", [])
        servers |= {n["name"]: n["apiServer"] for n in said if n["apiServer"]}
    return tuple(
        NodeView(
            name=node["metadata"]["name"],
            role=NodeRole.CONTROL_PLANE if node["metadata"]["name"] in servers else NodeRole.WORKER,
            group="",
            image="",
            kubelet=node["status"]["nodeInfo"]["kubeletVersion"],
            api_server=servers.get(node["metadata"]["name"], ""),
            health=Health.READY,
        )
        for node in items
        if node["kind"] == "Node"
    )
