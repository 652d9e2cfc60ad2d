"""What each of our services may do in the Kubernetes API, and as whom: a table each. Pure.

A service has a client certificate for its node (common name `constellation:SERVICE:NODE`,
organization `constellation:SERVICE`) and roles that are bound to that group. A right that no code
uses, or a call without a right, fails a test. Source: Kubernetes, "Using RBAC Authorization";
"X.509 client certificates" (common name: user, organization: group).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from constellation.kube import live_nodes
from constellation.kube.cluster_release import RELEASE_NAME
from constellation.kube.join_record_definition import GROUP

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.crypto.x509 import CertificateAuthority

__all__ = ["SERVICES", "Rule", "access_objects", "certify_client", "group_of", "kubeconfig"]

_LIFETIME: Final = timedelta(hours=24) - timedelta(minutes=5)
_RBAC: Final = "rbac.authorization.k8s.io"
_SYSTEM: Final = "kube-system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Verbs on one resource; `names` empty: any name; `namespace` empty: in the whole cluster.

    "create" cannot be limited to names: the API does not know the name when it asks.
    """

    verbs: tuple[str, ...]
    group: str
    resource: str
    names: tuple[str, ...] = ()
    namespace: str = ""


_JOINSERVICE: Final = (
    Rule(verbs=("get", "list", "create", "delete"), group=GROUP, resource="joinrecords"),
    Rule(verbs=("list",), group="", resource="nodes"),
    Rule(verbs=("create",), group="", resource="configmaps", namespace=_SYSTEM),
    Rule(
        verbs=("get", "update"),
        group="",
        resource="configmaps",
        names=(live_nodes.NAME,),
        namespace=_SYSTEM,
    ),
)
_OPERATOR: Final = (
    Rule(verbs=("get", "list", "patch", "delete"), group="", resource="nodes"),
    Rule(verbs=("list",), group="", resource="pods"),
    Rule(verbs=("create",), group="", resource="pods/eviction"),
    Rule(verbs=("list",), group="discovery.k8s.io", resource="endpointslices"),
    Rule(
        verbs=("get", "patch"),
        group="",
        resource="configmaps",
        names=("kubeadm-config",),
        namespace=_SYSTEM,
    ),
    Rule(
        verbs=("get",),
        group="apps",
        resource="deployments",
        names=("coredns",),
        namespace=_SYSTEM,
    ),
    Rule(verbs=("list", "create", "patch"), group=GROUP, resource="nodegroups"),
    Rule(verbs=("create",), group=GROUP, resource="clusterreleases"),
    Rule(verbs=("get", "patch"), group=GROUP, resource="clusterreleases", names=(RELEASE_NAME,)),
    Rule(verbs=("create",), group="coordination.k8s.io", resource="leases", namespace=_SYSTEM),
    Rule(
        verbs=("get", "update"),
        group="coordination.k8s.io",
        resource="leases",
        names=("constellation-operator",),
        namespace=_SYSTEM,
    ),
)

SERVICES: Final = {"joinservice": _JOINSERVICE, "operator": _OPERATOR}
"""All services that speak to the Kubernetes API; the folder of a service has its name."""


def group_of(service: str) -> str:
    """Give the group that a service's certificate names and its roles are bound to."""
    return f"constellation:{service}"


def access_objects() -> tuple[dict[str, Any], ...]:
    """Give roles and bindings of all services, as Kubernetes objects."""
    return tuple(
        made
        for service, rules in SERVICES.items()
        for namespace in sorted({r.namespace for r in rules})
        for made in _role_and_binding(service, namespace, rules)
    )


def certify_client(
    public_key: bytes,
    *,
    service: str,
    node_name: str,
    ca: CertificateAuthority,
    now: datetime,
    since: datetime,
) -> bytes:
    """Certify a service's key (DER) on one node for 24 hours; gives PEM.

    `now` and `since` as `CertificateAuthority.issue`.

    Raises:
        FormatError: the key is not P-256.
    """
    return ca.issue(
        public_key,
        common_name=f"{group_of(service)}:{node_name}",
        organizations=(group_of(service),),
        usage="client",
        now=now,
        since=since,
        lifetime=_LIFETIME,
    )


def kubeconfig(*, service: str, endpoint: str) -> bytes:
    """Give a service's kubeconfig; CA, certificate and key are files beside it."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "kubernetes",
                    "cluster": {
                        "server": f"https://{endpoint}",
                        "certificate-authority": "ca.crt",
                    },
                }
            ],
            "users": [
                {
                    "name": service,
                    "user": {"client-certificate": "client.crt", "client-key": "client.key"},
                }
            ],
            "contexts": [
                {"name": service, "context": {"cluster": "kubernetes", "user": service}},
            ],
            "current-context": service,
        },
        indent=1,
    ).encode()


def _role_and_binding(
    service: str, namespace: str, rules: tuple[Rule, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": group_of(service), **({"namespace": namespace} if namespace else {})}
    role = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "rules": [_rule(r) for r in rules if r.namespace == namespace],
    }
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": group_of(service)},
        "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": group_of(service)}],
    }
    return role, binding


def _rule(rule: Rule) -> dict[str, Any]:
    named = {"resourceNames": list(rule.names)} if rule.names else {}
    return {
        "apiGroups": [rule.group],
        "resources": [rule.resource],
        "verbs": list(rule.verbs),
        **named,
    }
