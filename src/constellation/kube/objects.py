"""The Kubernetes objects that a new cluster starts with: CoreDNS, roles, our resources. Pure.

CoreDNS comes from this manifest, not from kubeadm's addon, so that its version is ours on every
supported Kubernetes version. Source: CoreDNS deployment repository, kubernetes/coredns.yaml.sed
(the roles and the ports); the rest is written for this system.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from constellation.kube import cluster_release, live_nodes
from constellation.kube.join_record_definition import join_record_definition
from constellation.kube.service_access import access_objects

__all__ = ["COREDNS_IMAGE", "KUBERNETES_ANNOTATION", "cluster_dns_address", "first_objects"]

COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.14.2"
KUBERNETES_ANNOTATION = "constellation.internal/kubernetes"
"""On what belongs to one Kubernetes version: of which (the operator looks at it in an upgrade)."""
_NAME = "coredns"
_SPACE = "kube-system"
_LABELS = {"k8s-app": "kube-dns"}
_COREFILE = """.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""


def cluster_dns_address(service_cidr: str) -> str:
    """Give the tenth address of the service CIDR, where kubeadm's kubelets expect the DNS."""
    return str(ipaddress.ip_network(service_cidr)[10])


def first_objects(*, service_cidr: str, kubernetes: str) -> bytes:
    """Give all of them as one JSON List, for `kubectl apply`; of this Kubernetes ("v1.36.2")."""
    items = [
        *_coredns_access(),
        _coredns_config(),
        _coredns_deployment(kubernetes),
        _coredns_budget(),
        _coredns_service(cluster_dns_address(service_cidr)),
        _binding("constellation:kube-proxy", "system:node-proxier", group="system:nodes"),
        *cluster_release.definitions(),
        *live_nodes.gate(),
        join_record_definition(),
        *access_objects(),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode()


def _meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": _SPACE, **more}


def _coredns_access() -> list[dict[str, Any]]:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["endpoints", "services", "pods", "namespaces"],
                "verbs": ["list", "watch"],
            },
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
        ],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(_NAME)}
    binding = _binding("system:coredns", "system:coredns", account=_NAME)
    return [account, role, binding]


def _binding(name: str, role: str, *, group: str = "", account: str = "") -> dict[str, Any]:
    subject: dict[str, str] = (
        {"kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io"}
        if group
        else {"kind": "ServiceAccount", "name": account, "namespace": _SPACE}
    )
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": role,
        },
        "subjects": [subject],
    }


def _coredns_config() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(_NAME),
        "data": {"Corefile": _COREFILE},
    }


def _coredns_service(address: str) -> dict[str, Any]:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("kube-dns", labels={**_LABELS, "kubernetes.io/name": "CoreDNS"}),
        "spec": {"selector": _LABELS, "clusterIP": address, "ports": ports},
    }


def _coredns_budget() -> dict[str, Any]:
    """While nodes are drained one of the two must answer."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(_NAME),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _LABELS}},
    }


def _coredns_deployment(kubernetes: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(_NAME, labels=_LABELS, annotations={KUBERNETES_ANNOTATION: kubernetes}),
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": _coredns_pod()},
        },
    }


def _coredns_pod() -> dict[str, Any]:
    apart = {
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": _LABELS},
            "topologyKey": "kubernetes.io/hostname",
        },
        "weight": 100,
    }
    return {
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": _NAME,
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "affinity": {
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}
        },
        "dnsPolicy": "Default",
        "volumes": [
            {
                "name": "config",
                "configMap": {"name": _NAME, "items": [{"key": "Corefile", "path": "Corefile"}]},
            }
        ],
        "containers": [
            {
                "name": _NAME,
                "image": COREDNS_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "resources": {
                    "limits": {"memory": "170Mi"},
                    "requests": {"cpu": "50m", "memory": "70Mi"},
                },
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
                "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
                ],
                "livenessProbe": {
                    "httpGet": {"path": "/health", "port": 8080},
                    "initialDelaySeconds": 60,
                    "timeoutSeconds": 5,
                    "failureThreshold": 5,
                },
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
            }
        ],
    }
