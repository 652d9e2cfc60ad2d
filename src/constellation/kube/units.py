"""The units of the programs that Kubernetes needs on a node; written at each boot, never enabled.

Pure texts. Programs lie in `BIN_DIR`, where the bootstrapper links them after it checked them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

__all__ = ["BIN_DIR", "UNIT_DIR", "kube_proxy_configuration", "units"]

BIN_DIR: Final = Path("/run/constellation/bin")
UNIT_DIR: Final = Path("/run/systemd/system")

_PATH = f"{BIN_DIR}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTAINERD = f"""[Unit]
Description=containerd
StartLimitIntervalSec=0
After=network.target dbus.service

[Service]
Type=notify
Environment=PATH={_PATH}
ExecStart={BIN_DIR}/containerd --config /run/constellation/containerd/config.toml
Restart=always
RestartSec=1
Delegate=yes
KillMode=process
OOMScoreAdjust=-999
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=0
TasksMax=infinity
"""
# kubeadm writes the file of arguments; the client certificate is renewed in place
_KUBELET = f"""[Unit]
Description=kubelet
StartLimitIntervalSec=0
After=containerd.service
Wants=containerd.service

[Service]
Environment=PATH={_PATH}
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart={BIN_DIR}/kubelet --kubeconfig=/etc/kubernetes/kubelet.conf \\
  --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS
Restart=always
RestartSec=1
KillMode=process
LimitCORE=0
OOMScoreAdjust=-999
"""
_KUBE_PROXY = f"""[Unit]
Description=kube-proxy
StartLimitIntervalSec=0
After=kubelet.service

[Service]
Environment=PATH={_PATH}
ExecStart={BIN_DIR}/kube-proxy --config /run/constellation/kube-proxy.json
Restart=always
RestartSec=1
LimitCORE=0
OOMScoreAdjust=-998
"""


def units() -> dict[str, bytes]:
    """Give the unit files by name."""
    return {
        "containerd.service": _CONTAINERD.encode(),
        "kubelet.service": _KUBELET.encode(),
        "kube-proxy.service": _KUBE_PROXY.encode(),
    }


def kube_proxy_configuration(*, node_name: str, address: str, pod_network: str) -> bytes:
    """Give kube-proxy's configuration: nftables, the kubelet's client certificate.

    Source: kubeproxy.config.k8s.io/v1alpha1.
    """
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": node_name,
            "bindAddress": address,
            "clusterCIDR": pod_network,
            "clientConnection": {"kubeconfig": "/etc/kubernetes/kubelet.conf"},
            "metricsBindAddress": "127.0.0.1:10249",
            # load balancers ask here; it says no once the node is marked to be removed
            "healthzBindAddress": f"{address}:10256",
            # a node's namespace may not set the machine's connection tracking
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
        indent=1,
    ).encode()
