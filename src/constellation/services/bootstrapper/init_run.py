"""The first control plane, step by step: `InitRun.steps` is the one list.

What the owner sent is kept on the encrypted disk before the next step, so a run that was
interrupted goes on from there, with or without the owner's secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from constellation.base import clock, decode
from constellation.base.errors import Conflict, FormatError
from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto.signing import spki
from constellation.crypto.x509 import CertificateAuthority
from constellation.disk import state_disk
from constellation.disk.superblock import State
from constellation.kube import kubeadm, membership
from constellation.kube.node_certificates import certify, certify_service
from constellation.kube.node_record import NodeRecord, dump_node_record
from constellation.kube.peers import sign_peers
from constellation.providers.select import check_access
from constellation.services.bootstrapper import first_node, kubernetes, node_keys, runtime
from constellation.services.cloud_components import apply_components
from constellation.services.steps import Step
from constellation.trust import artifact_list
from constellation.trust.cluster_policy import verify_policy
from constellation.trust.disk_key import disk_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from constellation.crypto.derive import MasterSecret
    from constellation.providers.placement import Placement
    from constellation.providers.protocols import Instance
    from constellation.rpc.agent_client import AgentClient
    from constellation.rpc.stubs import init_pb2
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.bootstrapper.paths import Paths
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.cluster_policy import SignedPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["InitRun"]


class InitRun:
    """One run of init on this node; every step may be repeated."""

    def __init__(
        self,
        *,
        paths: Paths,
        agent: AgentClient,
        document: NodeDocument,
        own: Instance,
        plan: init_pb2.ClusterPlan,
        master: MasterSecret | None,
        access: Secret | None,
        placement: Placement | None,
        shelf: Shelf,
        ask_policy: Callable[[bytes], Awaitable[SignedPolicy]],
    ) -> None:
        self._paths, self._agent, self._document = paths, agent, document
        self._own, self._plan, self._master = own, plan, master
        self._access, self._placement, self._ask_policy = access, placement, ask_policy
        self._shelf = shelf
        if access is not None:
            check_access(paths.provider, access)
        self._artifacts: ArtifactList = artifact_list.parse(plan.artifact_list)
        if self._artifacts.kubernetes_version != plan.kubernetes_version:
            raise FormatError(
                f"plan: artifact list of {self._artifacts.kubernetes_version}, "
                f"want {plan.kubernetes_version}"
            )
        self._settings = first_node.settings(plan, document=document)
        self._scaled = first_node.scaled_groups(plan)
        self._cloud = first_node.cloud_artifact(plan, self._artifacts, provider=paths.provider)

    def steps(self) -> tuple[Step, ...]:
        """Give all steps in order."""
        config = self._paths.kubernetes / "kubeadm-init.yaml"

        def phase(words: tuple[str, ...]) -> Step:
            async def do() -> None:
                await kubernetes.init_phase(words, config=config)

            return Step(name="kubeadm " + " ".join(words), do=do)

        preflight, certs, *rest = kubeadm.INIT_PHASES
        return (
            Step(name="state disk", do=self._open_disk, volatile=True),
            Step(name="artifacts", do=self._check_artifacts, volatile=True),
            Step(name="containerd", do=self._start_containerd, volatile=True),
            Step(name="keys and certificates of services", do=self._make_identity),
            Step(name="cluster policy", do=self._get_policy),
            Step(name="KeyService", do=self._start_keyservice, volatile=True),
            Step(name="kubeadm configuration", do=self._configure),
            phase(preflight),
            phase(certs),
            Step(name="kubelet certificates", do=self._certify_kubelet),
            Step(name="pod network", do=self._start_network, volatile=True),
            *(phase(p) for p in rest),
            # they load while the API server starts, and wait for what the last steps write
            Step(name="static pods", do=self._place_pods, volatile=True),
            Step(name="kubelet", do=runtime.ensure_kubelet, volatile=True),
            Step(name="API server", do=self._wait_for_api, volatile=True),
            *(phase(p) for p in kubeadm.PHASES_AFTER_API),
            Step(name="no bootstrap tokens", do=self._forget_tokens),
            Step(name="DNS and roles", do=self._apply_objects),
            *self._group_steps(),
            *self._cloud_steps(),
            Step(name="kube-proxy", do=self._start_proxy, volatile=True),
            Step(name="node record", do=self._write_record),
            Step(name="mesh", do=runtime.start_mesh, volatile=True),
            Step(name="services", do=self._start_services, volatile=True),
        )

    def result(self) -> tuple[bytes, bytes]:
        """Give the administrator's kubeconfig and the cluster CA's certificate (PEM)."""
        return self._paths.admin.read_bytes(), (self._paths.pki / "ca.crt").read_bytes()

    async def _open_disk(self) -> None:
        record = state_disk.read_record()
        if record.state is State.OPEN:
            return
        if self._master is None:
            raise Conflict(
                "this node was given to its cluster, but its disk is not open",
                hint="`constellation init` again, after the node was rebooted",
            )
        variant = self._document.variant
        uuid, device = bytes.fromhex(record.uuid), state_disk.DEVICE
        if not await self._agent.given_to_cluster():
            await self._agent.give_to_cluster(self._document.cluster_id)
        key = disk_key(self._master, uuid)
        await state_disk.format_and_open(device, uuid, key, variant=variant)
        await state_disk.bind_folders()
        self._paths.keys.mkdir(mode=0o700, exist_ok=True)
        node_keys.private(
            self._paths.keys / "master-secret.json", Secret(decode.dump(self._master))
        )
        if self._access is not None:
            node_keys.private(self._paths.access, self._access)
        write_atomic(
            self._paths.state / "init-plan.bin",
            self._plan.SerializeToString(deterministic=True),
            mode=0o600,
        )
        await state_disk.finish(variant=variant)
        state_disk.write_record(state_disk.DiskRecord(state=State.OPEN, uuid=record.uuid))

    async def _check_artifacts(self) -> None:
        await runtime.check_programs(self._artifacts, shelf=self._shelf)

    async def _start_containerd(self) -> None:
        await runtime.start_containerd(self._artifacts, shelf=self._shelf)

    async def _make_identity(self) -> None:
        keys = self._paths.keys
        if not (keys / "services-ca.crt").exists():
            authority = CertificateAuthority.create(
                f"{self._plan.name} services",
                now=clock.now(),
                lifetime=first_node.SERVICES_CA_LIFETIME,
            )
            with contextlib.suppress(FileNotFoundError):
                (keys / "services-ca.key").unlink()
            node_keys.private(keys / "services-ca.key", authority.key_pem)
            write_atomic(keys / "services-ca.crt", authority.certificate_pem)
        node_keys.make_key(keys / "join.pem")
        node_keys.keep(node_keys.fresh_keys(), paths=self._paths)
        certificate = certify_service(
            self._member(),
            services_ca=self._services_ca(),
            cluster_id=self._document.cluster_id,
            now=clock.now(),
        )
        write_atomic(keys / "service.crt", certificate)

    async def _get_policy(self) -> None:
        public = spki(node_keys.make_key(self._paths.keys / "join.pem").public_key())
        signed = await self._ask_policy(public)
        policy = verify_policy(
            signed,
            owner_public_key=self._document.owner_public_key,
            cluster_id=self._document.cluster_id,
            minimum_serial=1,
        )
        first_node.check_policy(
            policy, join_public_key=public, plan=self._plan, artifacts=self._artifacts
        )
        self._paths.kept_policy(self._document).keep_first(signed)

    async def _start_keyservice(self) -> None:
        await runtime.mount_services(self._artifacts, shelf=self._shelf, paths=self._paths)
        await runtime.start_keyservice(paths=self._paths)

    async def _configure(self) -> None:
        kubernetes.write_api_configuration(paths=self._paths)
        record = self._record()
        node = kubernetes.node_settings(record, self._placement)
        kubernetes.write_kubelet_patch(node, paths=self._paths)
        text = kubeadm.init_configuration(
            kubernetes.cluster_settings(
                record, name=self._plan.name, api_sans=first_node.api_sans(self._plan)
            ),
            node,
        )
        write_atomic(self._paths.kubernetes / "kubeadm-init.yaml", text, mode=0o600)

    async def _certify_kubelet(self) -> None:
        authority = self._cluster_ca()
        certificates = certify(
            self._member(),
            cluster_ca=authority,
            services_ca=self._services_ca(),
            cluster_id=self._document.cluster_id,
            now=clock.now(),
        )
        kubernetes.write_kubelet_kubeconfig(
            self._record(), endpoint=f"{self._own.address}:{kubeadm.API_PORT}", paths=self._paths
        )
        node_keys.install_kubelet(
            client_certificate=certificates.kubelet_client,
            serving_certificate=certificates.kubelet_serving,
            paths=self._paths,
        )

    async def _start_network(self) -> None:
        value = membership.found(self._settings, self._member())
        key = node_keys.make_key(self._paths.keys / "join.pem")
        peers = sign_peers(value, join_private_key=key)
        write_atomic(self._paths.state / "peers.json", decode.dump(peers), mode=0o600)
        record = self._record()
        await runtime.configure_pod_network(record.pod_cidr, pod_network=record.pod_network)

    async def _wait_for_api(self) -> None:
        await kubernetes.wait_for_api(self._own.address, paths=self._paths)

    async def _forget_tokens(self) -> None:
        await kubernetes.forget_bootstrap_tokens(paths=self._paths)

    async def _apply_objects(self) -> None:
        await kubernetes.apply_first_objects(
            service_cidr=self._plan.service_cidr,
            kubernetes=self._plan.kubernetes_version,
            paths=self._paths,
        )

    def _group_steps(self) -> tuple[Step, ...]:
        scaled = self._scaled
        if not scaled:
            return ()

        async def apply() -> None:
            await kubernetes.apply_groups(scaled, paths=self._paths)

        return (Step(name="bounds of node groups", do=apply),)

    def _cloud_steps(self) -> tuple[Step, ...]:
        cloud = self._cloud
        if cloud is None:
            return ()

        async def apply() -> None:
            await apply_components(
                cloud,
                provider=self._paths.provider,
                shelf=self._shelf,
                kubeconfig=self._paths.admin,
            )

        return (Step(name="cloud integration", do=apply),)

    async def _start_proxy(self) -> None:
        await runtime.start_kube_proxy(self._record())

    async def _place_pods(self) -> None:
        kubernetes.ensure_api_identities(self._record(), paths=self._paths)
        runtime.place_static_pods(self._record().role, paths=self._paths)

    async def _start_services(self) -> None:
        policy = self._paths.kept_policy(self._document).verified()
        first = dataclasses.replace(self._member(), image=first_node.only_image(policy))
        value = membership.found(self._settings, first)
        write_atomic(self._paths.keys / "membership.json", decode.dump(value), mode=0o600)
        await runtime.start_upgrade_agent()

    async def _write_record(self) -> None:
        write_atomic(self._paths.state / "node.json", dump_node_record(self._record()), mode=0o600)

    def _cluster_ca(self) -> CertificateAuthority:
        return CertificateAuthority.load(
            (self._paths.pki / "ca.crt").read_bytes(),
            Secret((self._paths.pki / "ca.key").read_bytes()),
        )

    def _services_ca(self) -> CertificateAuthority:
        return CertificateAuthority.load(
            (self._paths.keys / "services-ca.crt").read_bytes(),
            Secret((self._paths.keys / "services-ca.key").read_bytes()),
        )

    def _member(self) -> membership.Member:
        uuid = bytes.fromhex(state_disk.read_record().uuid)
        return first_node.member(
            self._settings,
            own=self._own,
            attester_id=self._agent.attester_id,
            disk_uuid=uuid,
            keys=node_keys.load(paths=self._paths),
        )

    def _record(self) -> NodeRecord:
        return first_node.record(
            self._settings,
            self._member(),
            time=int(clock.now().timestamp()),
            provider=self._paths.provider,
        )
