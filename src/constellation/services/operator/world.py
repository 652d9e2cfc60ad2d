"""The real world of the operator: Kubernetes, etcd, provider, this node's disk and agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from constellation.base.errors import ConstellationError
from constellation.kube import api_server
from constellation.kube.join_log import Kind, verify_record
from constellation.kube.membership import NodeRole
from constellation.services.operator.facts import Facts
from constellation.services.operator.fleet import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.kube.cluster_release import Order, Report
    from constellation.kube.etcd import Etcd, EtcdMember
    from constellation.kube.log_copy import LogCopy
    from constellation.kube.membership import Membership
    from constellation.kube.rollout import NodeGroup
    from constellation.providers.protocols import NodeGroups
    from constellation.rpc.upgrade_client import AgentState, UpgradeClient
    from constellation.services.kept_policy import KeptPolicy
    from constellation.services.operator.kubernetes import Kubernetes
    from constellation.services.operator.ports import Pod
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["OwnOrders", "RealWorld"]

_PROBE_S = 3.0
_RECORDS_BACK = 200
"""How far back in the join log the reason of a refusal is looked for."""


class RealWorld:
    """`ports.World` on a control plane."""

    def __init__(
        self,
        *,
        me: str,
        kubernetes: Kubernetes,
        etcd: Etcd,
        provider: NodeGroups,
        agent: UpgradeClient,
        kept: KeptPolicy,
        log: LogCopy,
        cluster_ca: Path,
    ) -> None:
        self._me, self._kubernetes, self._etcd = me, kubernetes, etcd
        self._provider, self._agent, self._kept, self._log = provider, agent, kept, log
        self._cluster_ca = cluster_ca
        self._membership: Membership | None = None

    async def look(self) -> Facts:
        """Look once at everything. Raises Unavailable, Untrusted, FormatError."""
        policy = await asyncio.to_thread(self._kept.verified)
        membership = await asyncio.to_thread(self._load, policy)
        instances = await self._provider.list_instances()
        nodes = await self._kubernetes.nodes()
        etcd = await self._etcd.members()
        orders, reports = await self._kubernetes.orders()
        agent = await self._of_agent(policy)
        ready = {n.name for n in nodes if n.ready}
        placed = {m.instance_id for m in membership.nodes if m.name in ready}
        refusals: dict[str, str] = {}
        if any(i.instance_id not in placed for i in instances):
            refusals = await asyncio.to_thread(self._refusals, membership, policy)
        return Facts(
            me=self._me,
            membership=membership,
            policy=policy,
            instances=instances,
            nodes=nodes,
            etcd=etcd,
            api_servers=await self._api_servers(membership),
            refusals=refusals,
            components=await self._kubernetes.components(),
            snapshot=agent is not None and agent.snapshot,
            groups=await self._kubernetes.groups(),
            orders=orders,
            reports=reports,
            wanted_objects=None if agent is None else agent.cloud_objects,
        )

    async def mark_leaving(self, node: str) -> None:
        """See `ports.World`, as for all that follow."""
        await self._kubernetes.mark_leaving(node)

    async def pods_to_leave(self, node: str) -> tuple[Pod, ...]:
        """List pods that must leave."""
        return await self._kubernetes.pods_to_leave(node)

    async def evict(self, pod: Pod) -> bool:
        """Evict a pod."""
        return await self._kubernetes.evict(pod)

    async def endpoints_on(self, node: str) -> int:
        """Count endpoints."""
        return await self._kubernetes.endpoints_on(node)

    async def delete_node(self, node: str) -> None:
        """Delete a Node object."""
        await self._kubernetes.delete_node(node)

    async def create_machine(self, group: str) -> str:
        """Add a machine."""
        return (await self._provider.create(group)).instance_id

    async def delete_machine(self, instance_id: str) -> None:
        """Delete a machine."""
        await self._provider.delete(instance_id)

    async def etcd_members(self) -> tuple[EtcdMember, ...]:
        """List etcd's members."""
        return await self._etcd.members()

    async def etcd_leader(self) -> int:
        """Give the leader."""
        return await self._etcd.leader()

    async def move_etcd_leader(self, leader: EtcdMember, to: EtcdMember) -> None:
        """Move the lead."""
        await self._etcd.move_leader(leader, to=to)

    async def remove_etcd_member(self, member: EtcdMember) -> None:
        """Remove a member."""
        await self._etcd.remove(member)

    async def api_server_answers(self, address: str) -> bool:
        """Ask /livez at a node's own address."""
        try:
            await api_server.version(address, ca_file=self._cluster_ca, timeout_s=_PROBE_S)
        except ConstellationError:
            return False
        return True

    async def set_config_maps(self, kubernetes: str) -> None:
        """Set the version in kubeadm's ConfigMap."""
        await self._kubernetes.set_config_maps(kubernetes)

    async def snapshot(self, serial: int, kubernetes: str) -> None:
        """Take a snapshot here."""
        await self._agent.snapshot(serial=serial, kubernetes=kubernetes)

    async def core_dns(self, serial: int, kubernetes: str) -> None:
        """Apply CoreDNS."""
        await self._agent.core_dns(serial=serial, kubernetes=kubernetes)

    async def rbac(self, serial: int, kubernetes: str) -> None:
        """Apply RBAC, then note it."""
        await self._agent.rbac(serial=serial, kubernetes=kubernetes)
        await self._kubernetes.mark_rbac(kubernetes)

    async def cloud_objects(self, serial: int, kubernetes: str) -> None:
        """Renew the cloud's components."""
        await self._agent.cloud_objects(serial=serial, kubernetes=kubernetes)

    async def order(self, node: str, order: Order | None) -> None:
        """Write an order."""
        await self._kubernetes.order(node, order)

    async def create_group(self, group: NodeGroup) -> None:
        """Write a group's object."""
        await self._kubernetes.create_group(group)

    async def change_group(self, group: NodeGroup) -> None:
        """Write a group that was read before."""
        await self._kubernetes.change_group(group)

    async def set_provider_id(self, node: str, provider_id: str) -> None:
        """Name a Node's machine."""
        await self._kubernetes.set_provider_id(node, provider_id)

    async def fleet(self) -> Fleet:
        """Look at what an autoscaler asks about, and at no more. Raises as `look` does."""
        policy = await asyncio.to_thread(self._kept.verified)
        membership = await asyncio.to_thread(self._load, policy)
        return Fleet(
            policy=policy,
            membership=membership,
            groups=await self._kubernetes.groups(),
            instances=await self._provider.list_instances(),
            nodes=await self._kubernetes.nodes(),
        )

    async def write_status(self, status: dict[str, Any]) -> None:
        """Write the status."""
        await self._kubernetes.write_status(status)

    def _load(self, policy: ClusterPolicy) -> Membership:
        self._membership = self._log.load(
            join_public_key=policy.join_public_key, known=self._membership
        )
        return self._membership

    def _refusals(self, membership: Membership, policy: ClusterPolicy) -> dict[str, str]:
        found: dict[str, str] = {}
        newest = membership.sequence
        for sequence in range(newest, max(0, newest - _RECORDS_BACK), -1):
            signed = self._log.record(sequence)
            if signed is None:
                break
            entry = verify_record(
                signed,
                join_public_key=policy.join_public_key,
                cluster_id=membership.settings.cluster_id,
            ).entry
            if entry.kind is Kind.REFUSED and entry.instance_id:
                found.setdefault(entry.instance_id, "; ".join(entry.reasons))
        return found

    async def _api_servers(self, membership: Membership) -> dict[str, str]:
        placed = (*membership.nodes, *(r.member for r in membership.reservations))
        planes = [m.address for m in placed if m.role is NodeRole.CONTROL_PLANE]

        async def one(address: str) -> tuple[str, str]:
            try:
                return address, await api_server.version(
                    address, ca_file=self._cluster_ca, timeout_s=_PROBE_S
                )
            except ConstellationError:
                return address, ""

        answers = await asyncio.gather(*(one(address) for address in planes))
        return {address: version for address, version in answers if version}

    async def _of_agent(self, policy: ClusterPolicy) -> AgentState | None:
        """Ask what this node's agent obeys and has; None: nothing of this policy."""
        try:
            state = await self._agent.describe()
        except ConstellationError:  # whoever asks it for something is told why it cannot
            return None
        return state if state.policy_serial == policy.serial else None


class OwnOrders:
    """Orders and reports of one node."""

    def __init__(self, me: str, *, kubernetes: Kubernetes) -> None:
        self._me, self._kubernetes = me, kubernetes

    async def mine(self) -> tuple[Order | None, Report | None]:
        """Give this node's order and report. Raises Unavailable, FormatError."""
        orders, reports = await self._kubernetes.orders()
        return orders.get(self._me), reports.get(self._me)

    async def report(self, report: Report) -> None:
        """Write this node's report. Raises Unavailable."""
        await self._kubernetes.report(self._me, report)
