"""Objects of a cloud's components that keep every rule: an account, its role, a driver."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["IMAGE", "dump", "objects"]

IMAGE = "registry.k8s.io/provider/csi-driver:v1.2.3@sha256:" + "ab" * 32
_SPACE = "kube-system"
_RBAC = "rbac.authorization.k8s.io/v1"


def objects() -> list[dict[str, Any]]:
    """Give them; the last one has pods."""
    account = {"kind": "ServiceAccount", "namespace": _SPACE, "name": "csi"}
    rule = {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list"]}
    pod = {
        "serviceAccountName": "csi",
        "hostNetwork": True,
        "containers": [{"name": "csi", "image": IMAGE}],
        "initContainers": [{"name": "wait", "image": IMAGE}],
        "volumes": [
            {"name": "plugins", "hostPath": {"path": "/var/lib/kubelet/plugins"}},
            {"name": "devices", "hostPath": {"path": "/dev"}},
            {"name": "here", "emptyDir": {}},
        ],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "csi", "namespace": _SPACE},
        },
        {
            "apiVersion": _RBAC,
            "kind": "ClusterRole",
            "metadata": {"name": "csi"},
            "rules": [rule],
        },
        {
            "apiVersion": _RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "csi"},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "csi"},
            "subjects": [account],
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": "csi.example.com"},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "csi", "namespace": _SPACE},
            "spec": {"template": {"spec": pod}},
        },
    ]


def dump(items: list[dict[str, Any]]) -> bytes:
    """Write the file as a release has it."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()
