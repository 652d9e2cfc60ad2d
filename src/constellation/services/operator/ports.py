"""What the operator can see and do, as it needs it: one protocol, so that tests have a world too.

Every call may be repeated, and raises Unavailable where somebody does not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from constellation.kube.cluster_release import Order
    from constellation.kube.etcd import EtcdMember
    from constellation.kube.rollout import NodeGroup
    from constellation.services.operator.facts import Facts

__all__ = ["Pod", "World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that must leave a node before it goes; `ending`: it was told so already."""

    namespace: str
    name: str
    ending: bool


class World(Protocol):
    """Kubernetes, etcd, provider and this node's upgrade agent."""

    async def look(self) -> Facts:
        """Look once at everything."""
        ...

    async def mark_leaving(self, node: str) -> None:
        """Cordon a node and give it the taint and mark of one that is removed; absent is fine."""
        ...

    async def pods_to_leave(self, node: str) -> tuple[Pod, ...]:
        """List pods on a node, but those that belong to the node itself, or have ended."""
        ...

    async def evict(self, pod: Pod) -> bool:
        """Ask a pod to go; False: its disruption budget does not allow it now."""
        ...

    async def endpoints_on(self, node: str) -> int:
        """Count endpoints of Services on a node that belong to pods which must leave it."""
        ...

    async def delete_node(self, node: str) -> None:
        """Delete a Node object; absent is fine."""
        ...

    async def create_machine(self, group: str) -> str:
        """Add a machine to a group; gives its instance id."""
        ...

    async def delete_machine(self, instance_id: str) -> None:
        """Take a machine out of the load balancer and delete it; absent is fine."""
        ...

    async def etcd_members(self) -> tuple[EtcdMember, ...]:
        """List etcd's members."""
        ...

    async def etcd_leader(self) -> int:
        """Give the id of the member that leads."""
        ...

    async def move_etcd_leader(self, leader: EtcdMember, to: EtcdMember) -> None:
        """Let the leader give the lead to another voter."""
        ...

    async def remove_etcd_member(self, member: EtcdMember) -> None:
        """Remove a member; absent is fine."""
        ...

    async def api_server_answers(self, address: str) -> bool:
        """Say whether an API server answers at a node's own address."""
        ...

    async def set_config_maps(self, kubernetes: str) -> None:
        """Set `kubernetesVersion` in kubeadm's ConfigMap."""
        ...

    async def snapshot(self, serial: int, kubernetes: str) -> None:
        """Let this node's agent take an etcd snapshot."""
        ...

    async def core_dns(self, serial: int, kubernetes: str) -> None:
        """Let this node's agent apply CoreDNS' manifest."""
        ...

    async def rbac(self, serial: int, kubernetes: str) -> None:
        """Let this node's agent apply kubeadm's RBAC, and note its version."""
        ...

    async def cloud_objects(self, serial: int, kubernetes: str) -> None:
        """Let this node's agent renew the objects of the cloud's components."""
        ...

    async def order(self, node: str, order: Order | None) -> None:
        """Tell a control plane's own operator what to do; None takes it back, with its report."""
        ...

    async def create_group(self, group: NodeGroup) -> None:
        """Write the object of a group that has none; there already is fine."""
        ...

    async def change_group(self, group: NodeGroup) -> None:
        """Write a group that was read before. Raises Conflict: it was changed meanwhile."""
        ...

    async def set_provider_id(self, node: str, provider_id: str) -> None:
        """Say which machine a Node is, where nobody said so."""
        ...

    async def write_status(self, status: dict[str, Any]) -> None:
        """Show people what goes on."""
        ...
