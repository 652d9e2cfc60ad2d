"""Kubeconfig files of a node: a cluster, a CA, and a client certificate by file name. Pure.

Source: Kubernetes, client-go `clientcmd/api/v1`.
"""

from __future__ import annotations

import base64
import json

__all__ = ["kubelet_kubeconfig"]

_CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"


def kubelet_kubeconfig(*, node_name: str, endpoint: str, cluster_ca: bytes) -> bytes:
    """Give kubelet's kubeconfig: `endpoint` host:port, `cluster_ca` PEM, certificate by file."""
    user = f"system:node:{node_name}"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "kubernetes",
                    "cluster": {
                        "server": f"https://{endpoint}",
                        "certificate-authority-data": base64.b64encode(cluster_ca).decode(),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate": _CURRENT, "client-key": _CURRENT},
                }
            ],
            "contexts": [
                {"name": "kubelet", "context": {"cluster": "kubernetes", "user": user}},
            ],
            "current-context": "kubelet",
        },
        indent=1,
    ).encode()
