"""How kubeadm is told what this system wants: its configuration and the phases that are run.

Pure: values in, JSON documents (which YAML readers take) and argument tuples out. Sources:
kubeadm.k8s.io/v1beta4 and kubelet.config.k8s.io/v1beta1 (Kubernetes reference); design, section 10.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "API_PORT",
    "CONSTELLATION_DIR",
    "ETCD_IMAGE_TAG",
    "IGNORED_PREFLIGHT_ERRORS",
    "INIT_PHASES",
    "JOIN_CONTROL_PLANE_PHASES",
    "JOIN_PHASES",
    "KMS_SOCKET_DIR",
    "PATCHES",
    "PAUSE_IMAGE",
    "PHASES_AFTER_API",
    "ClusterSettings",
    "NodeSettings",
    "admission_configuration",
    "encryption_configuration",
    "init_configuration",
    "join_configuration",
    "kubelet_configuration",
    "kubelet_patch",
    "patches",
    "upgrade_configuration",
]

API_PORT: Final = 6443
ETCD_IMAGE_TAG: Final = "3.6.8-0"
PAUSE_IMAGE: Final = "registry.k8s.io/pause:3.10.2"
CONSTELLATION_DIR: Final = "/etc/kubernetes/constellation"
"""Configuration of ours that the API server reads: mounted into it, read-only."""
KMS_SOCKET_DIR: Final = "/run/constellation/kms"
"""Folder of the KMS v2 plugin's socket; mounted into kube-apiserver only."""

PATCHES: Final = "patches"
"""Folder below `CONSTELLATION_DIR`: what kubeadm lays over its own manifests, each time anew."""
_WATCHES_END = "10s"
"""Within this time an API server that ends closes its watches, a few at a time; clients go on at
another one from the last event (apiserver, server/filters/watch_termination.go)."""
_GOAWAY_CHANCE = "0.02"
"""The most that kube-apiserver takes."""
_REQUESTS_END_S = 85
"""What an API server that ends has beyond its delay: requests run 60 s at most
(`--request-timeout`), then it closes. After that kubelet kills it."""

API_START_S: Final = 600
"""What an API server may take until its /livez answers: over four minutes on an emulated
processor, in which RBAC's first roles are written and anonymous calls are refused. Kubelet kills
one that is not alive by then; with kubeadm's own 4 minutes it killed one that just was."""

_CRI_SOCKET = "unix:///run/containerd/containerd.sock"
_PKI = "/etc/kubernetes/pki"
_KUBELET_PKI = "/var/lib/kubelet/pki"
_SIGNING_DURATION = "168h0m0s"
_NODE_PORTS = "30100-32767"
"""Keeps 30080, 30081, 30090 and 30091, host ports of our services, out of users' reach."""

INIT_PHASES: Final = (
    ("preflight",),
    ("certs", "all"),
    ("kubeconfig", "all"),
    ("etcd", "local"),
    ("control-plane", "all"),
    ("kubelet-start",),
)
"""Phases of `kubeadm init` until the API answers, in kubeadm's own order; its phase
wait-control-plane takes no configuration file, so the bootstrapper waits by itself."""

PHASES_AFTER_API: Final = (
    ("upload-config", "all"),
    ("mark-control-plane",),
    # makes RBAC that is needed; its token and three bindings are deleted afterwards
    ("bootstrap-token",),
    ("kubelet-finalize", "all"),
)

JOIN_PHASES: Final = (
    ("preflight",),
    ("kubelet-start",),
)
"""Phases of `kubeadm join` on a worker.

`kubelet-wait-bootstrap` waits for a certificate that came with the ticket, and as a single phase
asks for a control plane's admin.conf.
"""

JOIN_CONTROL_PLANE_PHASES: Final = (
    ("preflight",),
    ("control-plane-prepare", "certs"),
    ("control-plane-prepare", "kubeconfig"),
    ("control-plane-prepare", "control-plane"),
    ("kubelet-start",),
    # adds a learner and promotes it once it has caught up
    ("etcd-join",),
    ("kubelet-wait-bootstrap",),
    ("control-plane-join", "mark-control-plane"),
)
"""Phases on a control plane; certificates of authorities came with the ticket."""

IGNORED_PREFLIGHT_ERRORS: Final = (
    "Swap",  # kubelet runs with failSwapOn false; swap of the host is not the node's to turn off
    "SystemVerification",  # reads the kernel's configuration, which a container does not show
    "NumCPU",  # small machines are allowed
    "Mem",
    "FileContent--proc-sys-net-ipv4-ip_forward",  # set by the mesh before the first pod
    "Service-Kubelet",  # our unit is started, never enabled
    "DirAvailable--var-lib-etcd",  # lies on the state disk and may hold an interrupted init's data
    "Hostname",  # node names are not in DNS
    # written from the ticket, before kubeadm looks
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    "DirAvailable--etc-kubernetes-manifests",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """What is the same on every node; `endpoint` is host:port, `api_sans` names and addresses.

    `shutdown_delay_s`: for so long an API server that was told to end still serves while `/readyz`
    says no: at least twice what the load balancer needs to notice.
    """

    name: str
    kubernetes_version: str
    endpoint: str
    api_sans: tuple[str, ...]
    service_cidr: str
    shutdown_delay_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What differs; `cgroup_version` 1 or 2; `systemd_cgroups`: containerd's SystemdCgroup.

    `provider_id` and `labels` are the Node's from its first moment; empty where no cloud says any.
    """

    name: str
    address: str
    cgroup_version: int
    systemd_cgroups: bool
    cluster_dns: str
    resolv_conf: str
    provider_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def init_configuration(cluster: ClusterSettings, node: NodeSettings) -> bytes:
    """Give the file for every phase of `kubeadm init`."""
    return _documents(
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": API_PORT},
            "nodeRegistration": _registration(node),
            "patches": _patches(),
            "timeouts": _timeouts(),
        },
        _cluster_configuration(cluster),
        kubelet_configuration(node),
    )


def join_configuration(node: NodeSettings, *, discovery_file: str, control_plane: bool) -> bytes:
    """Give the file for `kubeadm join`; discovery is by a kubeconfig with a client certificate.

    The rest of the configuration comes from the cluster, but kubelet's (`kubelet_patch`).
    """
    document: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {"file": {"kubeConfigPath": discovery_file}},
        "nodeRegistration": _registration(node),
        "patches": _patches(),
    }
    if control_plane:
        document["controlPlane"] = {
            "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": API_PORT}
        }
        document["timeouts"] = _timeouts()
    return _documents(document)


def upgrade_configuration(kubernetes_version: str, *, etcd_upgrade: bool) -> bytes:
    """Give the file for the phases of `kubeadm upgrade` on one node."""
    return _documents(
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "UpgradeConfiguration",
            "node": {"etcdUpgrade": etcd_upgrade, "patches": _patches()},
            "apply": {"kubernetesVersion": kubernetes_version},
            "timeouts": _timeouts(),
        }
    )


def patches(*, shutdown_delay_s: int) -> dict[str, bytes]:
    """Give the patches by file name (kubeadm: "Customizing with patches"): grace to end in."""
    grace = {"spec": {"terminationGracePeriodSeconds": shutdown_delay_s + _REQUESTS_END_S}}
    return {"kube-apiserver+merge.json": json.dumps(grace).encode()}


def kubelet_patch(node: NodeSettings) -> dict[str, bytes]:
    """Give the patch, by file name, that puts this node's own configuration of kubelet in place.

    In place of the whole that kubeadm reads from the ConfigMap `kubelet-config`: what a kubelet
    does is said by its node's image, and comes with it in an upgrade (ADR 82).
    """
    whole = {"op": "replace", "path": "", "value": kubelet_configuration(node)}  # RFC 6902, 4.3
    return {"kubeletconfiguration+json.json": json.dumps([whole]).encode()}


def _patches() -> dict[str, str]:
    return {"directory": f"{CONSTELLATION_DIR}/{PATCHES}"}


def _timeouts() -> dict[str, str]:
    # kubeadm makes it the startup probes' threshold in the manifests
    return {"controlPlaneComponentHealthCheck": f"{API_START_S}s"}


def _registration(node: NodeSettings) -> dict[str, Any]:
    return {
        "name": node.name,
        "criSocket": _CRI_SOCKET,
        # all images came with the artifact list; kubeadm would look for its own idea of pause
        "imagePullPolicy": "Never",
        "ignorePreflightErrors": list(IGNORED_PREFLIGHT_ERRORS),
        "kubeletExtraArgs": _arguments(_kubelet_arguments(node)),
    }


def _kubelet_arguments(node: NodeSettings) -> dict[str, str]:
    labels = ",".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
    said = {"node-ip": node.address, "provider-id": node.provider_id, "node-labels": labels}
    return {name: value for name, value in said.items() if value}


def _cluster_configuration(cluster: ClusterSettings) -> dict[str, Any]:
    return {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": cluster.name,
        "kubernetesVersion": cluster.kubernetes_version,
        "controlPlaneEndpoint": cluster.endpoint,
        # our own authorities issue from this key, and they are P-256
        "encryptionAlgorithm": "ECDSA-P256",
        # podSubnet stays unset: admission alone gives pod CIDRs
        "networking": {"serviceSubnet": cluster.service_cidr, "dnsDomain": "cluster.local"},
        "dns": {"disabled": True},
        "proxy": {"disabled": True},
        "etcd": {"local": {"dataDir": "/var/lib/etcd", "imageTag": ETCD_IMAGE_TAG}},
        "apiServer": {
            "certSANs": list(cluster.api_sans),
            "extraArgs": _arguments(
                {
                    "enable-bootstrap-token-auth": "false",
                    "kubelet-certificate-authority": f"{_PKI}/ca.crt",
                    "service-node-port-range": _NODE_PORTS,
                    "enable-admission-plugins": "NodeRestriction,DenyServiceExternalIPs",
                    "admission-control-config-file": f"{CONSTELLATION_DIR}/admission.json",
                    "encryption-provider-config": f"{CONSTELLATION_DIR}/encryption.json",
                    "profiling": "false",
                    # in this time a load balancer sees that the server ends; it serves all along
                    "shutdown-delay-duration": f"{cluster.shutdown_delay_s}s",
                    "shutdown-send-retry-after": "false",
                    # who keeps a connection is sent to another server now and then. When this one
                    # closes, a request that is on its way on a kept connection is answered by 503
                    # (k8s.io/apiserver, `WithWaitGroup`): few are left by then
                    "goaway-chance": _GOAWAY_CHANCE,
                    # else their connections keep it from ending for a minute
                    "shutdown-watch-termination-grace-period": _WATCHES_END,
                }
            ),
            "extraVolumes": [
                _volume("constellation", CONSTELLATION_DIR, read_only=True),
                _volume("constellation-kms", KMS_SOCKET_DIR, read_only=False),
            ],
        },
        "controllerManager": {
            "extraArgs": _arguments(
                {"cluster-signing-duration": _SIGNING_DURATION, "profiling": "false"}
            )
        },
        "scheduler": {"extraArgs": _arguments({"profiling": "false"})},
    }


def kubelet_configuration(node: NodeSettings) -> dict[str, Any]:
    """Give the whole KubeletConfiguration; kubeadm adds nothing to it (`kubelet_patch`)."""
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{_PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "systemd" if node.systemd_cgroups else "cgroupfs",
        "containerRuntimeEndpoint": _CRI_SOCKET,
        "clusterDNS": [node.cluster_dns],
        "clusterDomain": "cluster.local",
        "failSwapOn": False,
        "resolvConf": node.resolv_conf,
        "rotateCertificates": True,
        "serverTLSBootstrap": False,
        "staticPodPath": "/etc/kubernetes/manifests",
        # kubeadm asks there whether kubelet runs (phase kubelet-wait-bootstrap), and needs both
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        # issued by the cluster's CA for this node's own address, not self-signed by kubelet
        "tlsCertFile": f"{_KUBELET_PKI}/serving.crt",
        "tlsPrivateKeyFile": f"{_KUBELET_PKI}/serving.key",
        "readOnlyPort": 0,
        "protectKernelDefaults": False,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
    if node.cgroup_version == 1:
        configuration["failCgroupV1"] = False
    return configuration


def encryption_configuration() -> bytes:
    """Give the EncryptionConfiguration: Secrets by the KMS v2 plugin, nothing in plain text."""
    provider = {
        "kms": {
            "apiVersion": "v2",
            "name": "constellation",
            "endpoint": f"unix://{KMS_SOCKET_DIR}/kms.sock",
            "timeout": "3s",
        }
    }
    return _documents(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [provider]}],
        }
    )


def admission_configuration() -> bytes:
    """Give the AdmissionConfiguration: PodSecurity `baseline` outside the system's namespace."""
    pod_security = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {
            "enforce": "baseline",
            "enforce-version": "latest",
            "audit": "restricted",
            "audit-version": "latest",
            "warn": "baseline",
            "warn-version": "latest",
        },
        "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": ["kube-system"]},
    }
    return _documents(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{"name": "PodSecurity", "configuration": pod_security}],
        }
    )


def _arguments(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _volume(name: str, path: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "name": name,
        "hostPath": path,
        "mountPath": path,
        "readOnly": read_only,
        "pathType": "Directory",
    }


def _documents(*documents: Mapping[str, Any]) -> bytes:
    return b"\n---\n".join(json.dumps(d, indent=1, sort_keys=True).encode() for d in documents)
