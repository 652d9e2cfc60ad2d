"""A node takes its place with a ticket, step by step: `JoinRun.steps` is the one list.

All that the ticket brought, and the node's keys, are on the encrypted disk before that counts as
known: a run that was interrupted goes on without asking again, or begins anew with an empty disk.
Source: design, sections 6 and 10.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import clock, decode
from constellation.base.errors import FormatError, Rejected
from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.disk import state_disk
from constellation.disk.superblock import State
from constellation.kms.master_secret import FILE_NAME, dump_master_secret
from constellation.kube import kubeadm
from constellation.kube.join_log import SignedRecord
from constellation.kube.membership import NodeRole
from constellation.kube.node_record import NodeRecord, dump_node_record
from constellation.rpc.stubs import join_pb2
from constellation.services.bootstrapper import kubernetes, node_keys, runtime
from constellation.services.bootstrapper.redeem import (
    GRANT_PORT,
    ControlPlaneSecrets,
    redeem,
)
from constellation.services.peer_lists import verified_peer_list
from constellation.services.steps import Step
from constellation.trust import artifact_list

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.providers.placement import Placement
    from constellation.providers.protocols import Instance
    from constellation.rpc.agent_client import AgentClient
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.bootstrapper.node_keys import FreshKeys
    from constellation.services.bootstrapper.paths import Paths
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.node_document import NodeDocument
    from constellation.trust.policy_acceptance import OfferedPolicy

__all__ = ["JoinRun", "NewPlace", "check_ticket", "without_secrets"]

_PKI_NAMES = frozenset(
    {
        *("ca.crt", "ca.key", "sa.key", "sa.pub", "front-proxy-ca.crt", "front-proxy-ca.key"),
        *("etcd/ca.crt", "etcd/ca.key"),
    }
)


def check_ticket(ticket: join_pb2.JoinTicket, *, policy: ClusterPolicy) -> ArtifactList:
    """Check what a judged JoinService gave against the signed policy; gives the artifacts.

    Raises:
        Rejected: the artifact list is not in the policy, or a control plane's file has no name
            that is expected.
        FormatError: something cannot be read.
    """
    listed = artifact_list.parse(ticket.artifact_list)
    found = hashlib.sha256(ticket.artifact_list).digest()
    wanted = policy.artifact_lists.get(ticket.kubernetes_version)
    if found != wanted:
        shown = wanted.hex() if wanted is not None else "none for this version"
        raise Rejected((f"ticket: artifact list {found.hex()}, the cluster policy has {shown}",))
    if listed.kubernetes_version != ticket.kubernetes_version:
        raise FormatError(f"ticket: artifact list of {listed.kubernetes_version}")
    if unknown := sorted(ticket.control_plane.pki.keys() - _PKI_NAMES):
        raise Rejected((f"ticket: unexpected file {unknown[0][:80]!r}",))
    return listed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlace:
    """What a node has in memory when it gets its ticket: `giver` is the address it came from.

    `policy` is the judged one (`first_policy`).
    """

    keys: FreshKeys
    policy: OfferedPolicy
    giver: str


def without_secrets(ticket: join_pb2.JoinTicket) -> join_pb2.JoinTicket:
    """Give what an interrupted run still needs of a ticket: names, certificates and settings."""
    kept = join_pb2.JoinTicket()
    kept.CopyFrom(ticket)
    kept.ClearField("disk_key")
    if kept.HasField("control_plane"):
        kept.control_plane.Clear()
        kept.control_plane.SetInParent()  # an empty message: still a control plane's
    return kept


class JoinRun:
    """One run of join on this node; every step may be repeated."""

    def __init__(
        self,
        *,
        paths: Paths,
        agent: AgentClient,
        document: NodeDocument,
        own: Instance,
        ticket: join_pb2.JoinTicket,
        new: NewPlace | None,
        policy: ClusterPolicy,
        placement: Placement | None,
        shelf: Shelf,
    ) -> None:
        self._paths, self._agent, self._document = paths, agent, document
        self._own, self._ticket, self._new = own, ticket, new
        self._policy, self._placement, self._shelf = policy, placement, shelf
        self._artifacts = check_ticket(ticket, policy=policy)
        self._role = NodeRole.CONTROL_PLANE if ticket.HasField("control_plane") else NodeRole.WORKER
        self._peers = verified_peer_list(ticket.peers, policy=policy, minimum_serial=0)

    @property
    def node_name(self) -> str:
        """This node's name."""
        return self._ticket.node_name

    def steps(self) -> tuple[Step, ...]:
        """Give all steps in order."""
        control_plane = self._role is NodeRole.CONTROL_PLANE
        phases = kubeadm.JOIN_CONTROL_PLANE_PHASES if control_plane else kubeadm.JOIN_PHASES
        config = self._paths.kubernetes / "kubeadm-join.yaml"

        def phase(words: tuple[str, ...]) -> Step:
            async def do() -> None:
                await kubernetes.join_phase(words, config=config)

            return Step(name="kubeadm " + " ".join(words), do=do)

        after_start = phases.index(("kubelet-start",)) + 1
        kubelet = Step(name="kubelet", do=runtime.ensure_kubelet, volatile=True)
        keyservice = Step(name="KeyService", do=self._start_keyservice, volatile=True)
        return (
            Step(name="state disk", do=self._open_disk, volatile=True),
            Step(name="artifacts", do=self._check_artifacts, volatile=True),
            Step(name="containerd", do=self._start_containerd, volatile=True),
            Step(name="certificates", do=self._install),
            Step(name="services bundle", do=self._mount_services, volatile=True),
            *((keyservice,) if control_plane else ()),
            Step(name="pod network", do=self._start_network, volatile=True),
            *(phase(words) for words in phases[:after_start]),
            kubelet,
            *(phase(words) for words in phases[after_start:]),
            *((Step(name="API server", do=self._wait_for_api),) if control_plane else ()),
            Step(name="kube-proxy", do=self._start_proxy, volatile=True),
            Step(name="node record", do=self._write_record),
            Step(name="mesh", do=runtime.start_mesh, volatile=True),
            Step(name="services", do=self._place_services, volatile=True),
            Step(name="ticket", do=self._drop_ticket),
        )

    async def _open_disk(self) -> None:
        record = state_disk.read_record()
        if record.state is State.OPEN:
            return
        assert self._new is not None  # noqa: S101 - a new disk means a new ticket
        variant = self._document.variant
        uuid, key = bytes.fromhex(record.uuid), Secret(self._ticket.disk_key)
        if not await self._agent.given_to_cluster():
            await self._agent.give_to_cluster(self._document.cluster_id)
        # before the disk: without them this node starts again and asks for another ticket
        secrets = await self._redeem(self._new) if self._role is NodeRole.CONTROL_PLANE else None
        await state_disk.format_and_open(state_disk.DEVICE, uuid, key, variant=variant)
        await state_disk.bind_folders()
        self._paths.keys.mkdir(mode=0o700, exist_ok=True)
        node_keys.keep(self._new.keys, paths=self._paths)
        if secrets is not None:
            self._keep_control_plane(secrets)
        self._paths.kept_policy(self._document).keep(self._new.policy)
        kept = without_secrets(self._ticket).SerializeToString()
        write_atomic(self._paths.ticket, kept, mode=0o600)
        await state_disk.finish(variant=variant)
        state_disk.write_record(state_disk.DiskRecord(state=State.OPEN, uuid=record.uuid))

    async def _redeem(self, new: NewPlace) -> ControlPlaneSecrets:
        ticket = self._ticket.control_plane
        return await redeem(
            SignedRecord(data=ticket.grant, signature=ticket.grant_signature),
            address=new.giver,
            port=GRANT_PORT,
            attester=self._agent,
            document=self._document,
            policy=self._policy,
            provider=self._paths.provider,
        )

    async def _check_artifacts(self) -> None:
        await runtime.check_programs(self._artifacts, shelf=self._shelf)

    async def _start_containerd(self) -> None:
        await runtime.start_containerd(self._artifacts, shelf=self._shelf)

    async def _install(self) -> None:
        ticket, keys = self._ticket, self._paths.keys
        write_atomic(self._paths.pki / "ca.crt", ticket.cluster_ca_certificate)
        write_atomic(keys / "service.crt", ticket.service_certificate)
        write_atomic(keys / "services-ca.crt", ticket.services_ca_certificate)
        node_keys.install_kubelet(
            client_certificate=ticket.kubelet_client_certificate,
            serving_certificate=ticket.kubelet_serving_certificate,
            paths=self._paths,
        )
        record = self._record()
        kubernetes.write_kubelet_kubeconfig(
            record, endpoint=kubernetes.kubelet_endpoint(record), paths=self._paths
        )
        if self._role is NodeRole.CONTROL_PLANE:
            kubernetes.write_api_configuration(paths=self._paths)
        discovery = kubernetes.write_discovery(record, endpoint=ticket.endpoint, paths=self._paths)
        self._write_kubeadm_configuration(record, discovery)

    def _write_kubeadm_configuration(self, record: NodeRecord, discovery: Path) -> None:
        node = kubernetes.node_settings(record, self._placement)
        kubernetes.write_kubelet_patch(node, paths=self._paths)
        text = kubeadm.join_configuration(
            node,
            discovery_file=str(discovery),
            control_plane=self._role is NodeRole.CONTROL_PLANE,
        )
        write_atomic(self._paths.kubernetes / "kubeadm-join.yaml", text, mode=0o600)

    def _keep_control_plane(self, secrets: ControlPlaneSecrets) -> None:
        ticket, keys = self._ticket.control_plane, self._paths.keys
        for path, content in (
            *((self._paths.pki / name, data) for name, data in ticket.pki.items()),
            (keys / FILE_NAME, dump_master_secret(secrets.master).reveal()),
            (keys / "services-ca.key", ticket.services_ca_key),
            (keys / "join.pem", secrets.join_key.reveal()),
            (keys / "membership.json", ticket.membership),
        ):
            write_atomic(path, content, mode=0o600)
        if secrets.access is not None:
            node_keys.private(self._paths.access, secrets.access)

    async def _mount_services(self) -> None:
        await runtime.mount_services(self._artifacts, shelf=self._shelf, paths=self._paths)

    async def _start_keyservice(self) -> None:
        await runtime.start_keyservice(paths=self._paths)

    async def _start_network(self) -> None:
        write_atomic(self._paths.state / "peers.json", decode.dump(self._peers), mode=0o600)
        record = self._record()
        await runtime.configure_pod_network(record.pod_cidr, pod_network=record.pod_network)

    async def _wait_for_api(self) -> None:
        await kubernetes.wait_for_api(self._own.address, paths=self._paths)

    async def _start_proxy(self) -> None:
        await runtime.start_kube_proxy(self._record())

    async def _place_services(self) -> None:
        if self._role is NodeRole.CONTROL_PLANE:
            await runtime.start_upgrade_agent()
        kubernetes.ensure_api_identities(self._record(), paths=self._paths)
        runtime.place_static_pods(self._role, paths=self._paths)

    async def _drop_ticket(self) -> None:
        self._paths.ticket.unlink(missing_ok=True)

    async def _write_record(self) -> None:
        write_atomic(self._paths.state / "node.json", dump_node_record(self._record()), mode=0o600)

    def _record(self) -> NodeRecord:
        ticket = self._ticket
        return NodeRecord(
            name=ticket.node_name,
            instance_id=self._own.instance_id,
            role=self._role,
            group=ticket.group,
            address=self._own.address,
            mesh_address=ticket.mesh_address,
            pod_cidr=ticket.pod_cidr,
            pod_network=ticket.pod_network,
            mesh_cidr=ticket.mesh_cidr,
            service_cidr=ticket.service_cidr,
            cluster_id=self._document.cluster_id,
            disk_uuid=bytes.fromhex(state_disk.read_record().uuid),
            endpoint=ticket.endpoint,
            kubernetes_version=ticket.kubernetes_version,
            artifact_list=ticket.artifact_list,
            provider=self._paths.provider,
            time=int(clock.now().timestamp()),
        )
