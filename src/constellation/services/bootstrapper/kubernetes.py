"""kubeadm and kubectl on this node: one phase, one object at a time, never a secret in argv."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.files import write_atomic
from constellation.base.retry import until_available
from constellation.kube import api_server, cluster_release, kubeadm, units
from constellation.kube.kubeconfigs import kubelet_kubeconfig
from constellation.kube.membership import NodeRole
from constellation.kube.objects import cluster_dns_address, first_objects
from constellation.providers.select import balancer_notices_s
from constellation.services import node_tools
from constellation.services.api_identities import ApiIdentities
from constellation.services.bootstrapper.runtime import RESOLV_CONF, cgroup_version

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.kube.node_record import NodeRecord
    from constellation.kube.rollout import NodeGroup
    from constellation.providers.placement import Placement
    from constellation.services.bootstrapper.paths import Paths

__all__ = [
    "apply_first_objects",
    "apply_groups",
    "cluster_settings",
    "ensure_api_identities",
    "forget_bootstrap_tokens",
    "init_phase",
    "join_phase",
    "kubelet_endpoint",
    "node_settings",
    "shutdown_delay_s",
    "wait_for_api",
    "write_api_configuration",
    "write_discovery",
    "write_kubelet_kubeconfig",
    "write_kubelet_patch",
]

_PHASE_S = 300.0
_READY_CALL_S = 5.0


def cluster_settings(
    record: NodeRecord, *, name: str, api_sans: tuple[str, ...]
) -> kubeadm.ClusterSettings:
    """Give kubeadm's view of the cluster."""
    return kubeadm.ClusterSettings(
        name=name,
        kubernetes_version=record.kubernetes_version,
        endpoint=record.endpoint,
        api_sans=api_sans,
        service_cidr=record.service_cidr,
        shutdown_delay_s=shutdown_delay_s(record.provider),
    )


def shutdown_delay_s(provider: str) -> int:
    """Give what an API server waits before it closes: more than twice what the balancer needs."""
    return 2 * balancer_notices_s(provider) + 1


def node_settings(record: NodeRecord, placement: Placement | None) -> kubeadm.NodeSettings:
    """Give kubeadm's view of this node; `placement` as its cloud says, None where there is none."""
    version = cgroup_version()
    return kubeadm.NodeSettings(
        name=record.name,
        address=record.address,
        cgroup_version=version,
        systemd_cgroups=version == 2,  # noqa: PLR2004 - a version
        cluster_dns=cluster_dns_address(record.service_cidr),
        resolv_conf=str(RESOLV_CONF),
        provider_id=placement.provider_id if placement is not None else "",
        labels=placement.labels if placement is not None else {},
    )


def write_api_configuration(*, paths: Paths) -> None:
    """Write what the API server reads beside its arguments."""
    folder = paths.kubernetes / "constellation"
    write_atomic(folder / "admission.json", kubeadm.admission_configuration(), mode=0o600)
    write_atomic(folder / "encryption.json", kubeadm.encryption_configuration(), mode=0o600)
    delay_s = shutdown_delay_s(paths.provider)
    for name, patch in kubeadm.patches(shutdown_delay_s=delay_s).items():
        write_atomic(folder / kubeadm.PATCHES / name, patch, mode=0o600)


def write_kubelet_patch(node: kubeadm.NodeSettings, *, paths: Paths) -> None:
    """Write what kubelet is told on this node, as kubeadm takes it."""
    folder = paths.kubernetes / "constellation" / kubeadm.PATCHES
    for name, patch in kubeadm.kubelet_patch(node).items():
        write_atomic(folder / name, patch, mode=0o600)


def write_kubelet_kubeconfig(record: NodeRecord, *, endpoint: str, paths: Paths) -> None:
    """Write kubelet.conf; the certificate is in the file that kubelet renews."""
    _write_kubeconfig(paths.kubernetes / "kubelet.conf", record, endpoint=endpoint, paths=paths)


def write_discovery(record: NodeRecord, *, endpoint: str, paths: Paths) -> Path:
    """Write what `kubeadm join` finds the cluster with: kubelet's identity; gives the path."""
    path = paths.kubernetes / "constellation" / "discovery.conf"
    _write_kubeconfig(path, record, endpoint=endpoint, paths=paths)
    return path


def kubelet_endpoint(record: NodeRecord) -> str:
    """Give the API server that this node's kubelet talks to: a control plane's is its own.

    After a power cut it may be the one that brings etcd's quorum: behind the load balancer it would
    wait for an API server that waits for it, before it starts the static pods (kubeadm does the
    same: ControlPlaneKubeletLocalMode).
    """
    own = record.role is NodeRole.CONTROL_PLANE
    return f"{record.address}:{kubeadm.API_PORT}" if own else record.endpoint


def _write_kubeconfig(path: Path, record: NodeRecord, *, endpoint: str, paths: Paths) -> None:
    text = kubelet_kubeconfig(
        node_name=record.name,
        endpoint=endpoint,
        cluster_ca=(paths.pki / "ca.crt").read_bytes(),
    )
    write_atomic(path, text, mode=0o600)


async def init_phase(phase: tuple[str, ...], *, config: Path) -> None:
    """Run one phase of `kubeadm init`. Raises Unavailable with the end of its output."""
    await _phase("init", phase, config=config)


async def join_phase(phase: tuple[str, ...], *, config: Path) -> None:
    """Run one phase of `kubeadm join`. Raises Unavailable with the end of its output."""
    await _phase("join", phase, config=config)


async def wait_for_api(address: str, *, paths: Paths) -> None:
    """Wait until the API server at a node's own address says that it is ready.

    Raises:
        Unavailable: not within `kubeadm.API_START_S`; with its last answer.
    """

    async def ready() -> None:
        await api_server.ready(address, ca_file=paths.pki / "ca.crt", timeout_s=_READY_CALL_S)

    await until_available(ready, deadline_s=kubeadm.API_START_S, longest_pause_s=0.5)


async def forget_bootstrap_tokens(*, paths: Paths) -> None:
    """Delete the bootstrap token and the bindings that would let a token's holder join."""
    await node_tools.forget_bootstrap_tokens(kubeconfig=paths.admin)


def ensure_api_identities(record: NodeRecord, *, paths: Paths) -> None:
    """Give this control plane's services their identities in the Kubernetes API, if it is one.

    Raises:
        ConstellationError: the cluster CA is not on the disk or not what it must be.
    """
    if record.role is NodeRole.CONTROL_PLANE:
        ApiIdentities(
            state=paths.state, pki=paths.pki, node_name=record.name, endpoint=record.endpoint
        ).ensure()


async def apply_first_objects(*, service_cidr: str, kubernetes: str, paths: Paths) -> None:
    """Create CoreDNS and what else a new cluster starts with."""
    await node_tools.apply_objects(
        first_objects(service_cidr=service_cidr, kubernetes=kubernetes), kubeconfig=paths.admin
    )


async def apply_groups(groups: tuple[NodeGroup, ...], *, paths: Paths) -> None:
    """Create the objects of groups that an autoscaler may move; the operator makes the others."""
    await node_tools.apply_objects(cluster_release.group_objects(groups), kubeconfig=paths.admin)


async def _phase(verb: str, phase: tuple[str, ...], *, config: Path) -> None:
    words: tuple[str | Path, ...] = (verb, "phase", *phase, "--config", config)
    await node_tools.kubeadm(units.BIN_DIR / "kubeadm", *words, timeout_s=_PHASE_S)
