"""Which objects of a cloud's components may run in a cluster? A list of a release, checked. Pure.

Cloud controller manager and CSI driver come as one file of the signed release (`cloud/NAME` of the
artifact list, by digest): a JSON List. It is applied only if every image in it is named by digest,
every kind is one of a few, everything lies in kube-system, its roles read no secret and start no
pod, its pods act as its own accounts alone, mount no secret and see nothing of this system's
folders. All findings are told at once. Sources: Kubernetes API reference (kinds and fields); "Role
Based Access Control Good Practices" (escalate, bind, impersonate, secrets, wildcards, nodes/proxy,
who may make workloads); "Using RBAC Authorization" ("*/SUBRESOURCE", roles of Kubernetes' own
controllers); OCI Image Specification 1.1, "Digests"; distribution/reference (the grammar of image
names).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from constellation.base.errors import FormatError, Rejected
from constellation.kube.cluster_release import API_GROUP

__all__ = ["MAX_BYTES", "artifact_name", "check_objects", "kinds"]

MAX_BYTES: Final = 512 * 1024
_MOST = 64
_SPACE: Final = "kube-system"
_PINNED: Final = re.compile(
    r"[a-z0-9][a-z0-9.-]{0,252}(:\d{1,5})?(/[a-z0-9][a-z0-9._-]{0,127}){1,8}"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}"
)
_RBAC: Final = "rbac.authorization.k8s.io/v1"
_KINDS: Final = {
    "ServiceAccount": "v1",
    "ConfigMap": "v1",
    "Role": _RBAC,
    "RoleBinding": _RBAC,
    "ClusterRole": _RBAC,
    "ClusterRoleBinding": _RBAC,
    "Deployment": "apps/v1",
    "DaemonSet": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "CSIDriver": "storage.k8s.io/v1",
    "StorageClass": "storage.k8s.io/v1",
}
_OF_CLUSTER: Final = frozenset({"ClusterRole", "ClusterRoleBinding", "CSIDriver", "StorageClass"})
_READ: Final = frozenset({"get", "list", "watch"})
_VERBS: Final = _READ | {"create", "update", "patch", "delete", "deletecollection"}
"""No other word: escalate, bind, impersonate and its newer kinds are words of their own."""
_RESOURCES: Final = frozenset(
    {
        "secrets",
        "serviceaccounts/token",
        "nodes/proxy",
        "pods/attach",
        "pods/ephemeralcontainers",
        "pods/exec",
        "pods/portforward",
        "pods/proxy",
        "services/proxy",
    }
)
_RESOURCES_TO_READ: Final = frozenset(
    {
        "configmaps",
        "cronjobs",
        "customresourcedefinitions",
        "daemonsets",
        "deployments",
        "jobs",
        "namespaces",
        "pods",
        "podtemplates",
        "replicasets",
        "replicationcontrollers",
        "serviceaccounts",
        "statefulsets",
    }
)
"""Who writes one of these starts a pod with any account, or changes what kubeadm reads."""
_GROUPS: Final = frozenset(
    {
        "*",
        _RBAC.partition("/")[0],
        "admissionregistration.k8s.io",
        "apiregistration.k8s.io",
        "certificates.k8s.io",
        API_GROUP,
    }
)
_ACCOUNT: Final = re.compile(r"(?!cloud-provider$)(?:[a-z0-9]+-)*(?:csi|cloud)(?:-[a-z0-9]+)*")
"""Kubernetes binds roles to accounts by name, before there is such an account; none of its own
controllers has one of these names."""
_AGGREGATES: Final = "rbac.authorization.k8s.io/aggregate-to-"
_BUILT_IN: Final = ("RoleBinding", "Role", "extension-apiserver-authentication-reader")
"""Reads one ConfigMap with which servers know callers of the API server."""
_HOST_PATHS: Final = ("/var/lib/kubelet", "/dev", "/sys", "/run/udev", "/lib/modules")
_READ_PATHS: Final = ("/etc/ssl/certs", "/usr")
"""For reading alone, of the measured image: the authorities that it trusts, for the cloud's API,
and its programs (mkfs, mount, blkid), which a CSI driver calls on the node."""
_CREDENTIAL_PATH: Final = "/run/constellation/cloud"
"""For reading alone, on control planes alone: what OpenStack's own components ask it with."""
_DEFAULT_CLASS: Final = frozenset(
    {
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    }
)
_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
_PODS: Final = ("containers", "initContainers", "ephemeralContainers")
_VOLUMES: Final = frozenset({"name", "hostPath", "emptyDir", "configMap"})
"""Of the others one (secret, projected) reads secrets without a role, and some ask other hosts."""


def artifact_name(provider: str) -> str:
    """Give the name of a cloud's file in the artifact list."""
    return f"cloud/{provider}"


def kinds() -> tuple[tuple[str, str], ...]:
    """Give every kind that may be in a list, with its apiVersion."""
    return tuple(_KINDS.items())


def check_objects(data: bytes) -> None:
    """Check a cloud's objects.

    Raises:
        FormatError: not a JSON List, or longer than 512 KiB.
        Rejected: with everything that may not be.
    """
    items = _items(data)
    findings: list[str] = []
    names = [(str(o["kind"]), str(o["metadata"]["name"])) for o in items]
    roles = {(kind, name) for kind, name in names if kind in ("Role", "ClusterRole")}
    accounts = {name for kind, name in names if kind == "ServiceAccount"}
    for item in items:
        findings += _of_object(item, accounts)
    for item in items:
        if item["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            findings += _of_binding(item, roles, accounts)
    if findings:
        raise Rejected(tuple(findings))


def _items(data: bytes) -> list[dict[str, Any]]:
    if len(data) > MAX_BYTES:
        raise FormatError(f"cloud objects: {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise FormatError("cloud objects: not JSON") from None
    if not isinstance(found, dict) or found.get("kind") != "List":
        raise FormatError("cloud objects: expected a List")
    items = found.get("items")
    if not isinstance(items, list) or not 0 < len(items) <= _MOST:
        raise FormatError(f"cloud objects: expected 1 to {_MOST} items")
    for item in items:
        metadata = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise FormatError("cloud objects: an item without metadata.name")
        if not isinstance(metadata.get("labels") or {}, dict):
            raise FormatError(f"cloud objects: labels of {_name(item)} are no object")
        if not isinstance(item.get("kind"), str):
            raise FormatError(f"cloud objects: {_name(item)} has no kind")
    return items


def _of_object(item: dict[str, Any], accounts: set[str]) -> list[str]:
    kind, where = item["kind"], f"{item['kind'][:40]} {_name(item)}"
    if _KINDS.get(kind) != item.get("apiVersion"):
        return [f"{where}: found {str(item.get('apiVersion'))[:60]}, expected a kind of the list"]
    space = item["metadata"].get("namespace", "")
    if space != ("" if kind in _OF_CLUSTER else _SPACE):
        return [f"{where}: found namespace {str(space)[:60]!r}, expected {_SPACE}"]
    match kind:
        case "Role" | "ClusterRole":
            return _of_role(item, where)
        case "Deployment" | "DaemonSet":
            return _of_pods(item, where, accounts)
        case "StorageClass":
            return _of_class(item, where)
        case _:
            return _of_name(item, where)


def _of_name(item: dict[str, Any], where: str) -> list[str]:
    if item["kind"] != "ServiceAccount" or _ACCOUNT.fullmatch(_name(item)):
        return []
    return [f"{where}: expected an account called after csi or cloud"]


def _of_class(item: dict[str, Any], where: str) -> list[str]:
    """Refuse to be the default: who stores where the cloud can read has asked for it."""
    marks = item["metadata"].get("annotations")
    marks = _object(item["metadata"], "annotations", where) if marks is not None else {}
    return [
        f"{where}: is the default, expected a class that is asked for"
        for name, value in marks.items()
        if name in _DEFAULT_CLASS and value != "false"
    ]


def _of_role(item: dict[str, Any], where: str) -> list[str]:
    if item.get("aggregationRule") is not None:
        return [f"{where}: is made of other roles, expected rules of its own"]
    findings = [
        f"{where}: label {str(label)[:80]}: its rules would become part of another role"
        for label in item["metadata"].get("labels") or {}
        if str(label).startswith(_AGGREGATES)
    ]
    for rule in _objects(item, "rules", where):
        verbs, resources = (_words(rule, field, where) for field in ("verbs", "resources"))
        groups = _words(rule, "apiGroups", where)
        writes = not _READ.issuperset(verbs)
        findings += [f"{where}: verbs has {word[:60]}" for word in verbs if word not in _VERBS]
        findings += [
            f"{where}: resources has {word[:60]}"
            for word in resources
            # "*/token" is that of every resource
            if "*" in word or word in _RESOURCES
        ]
        findings += [
            f"{where}: writes {word[:60]}"
            for word in resources
            if writes and word in _RESOURCES_TO_READ
        ]
        findings += [f"{where}: apiGroups has {word[:60]}" for word in groups if word in _GROUPS]
        if rule.get("nonResourceURLs"):
            findings.append(f"{where}: rules of URLs that are no resources")
    return findings


def _of_binding(item: dict[str, Any], roles: set[tuple[str, str]], accounts: set[str]) -> list[str]:
    where = f"{item['kind']} {_name(item)}"
    reference = _object(item, "roleRef", where)
    findings = []
    role = (str(reference.get("kind")), str(reference.get("name")))
    if role not in roles and (item["kind"], *role) != _BUILT_IN:
        findings.append(f"{where}: its role is not among the objects")
    for subject in _objects(item, "subjects", where):
        own = subject.get("namespace") == _SPACE and str(subject.get("name")) in accounts
        if subject.get("kind") != "ServiceAccount" or not own:
            findings.append(f"{where}: is for somebody who is not among the objects")
    return findings


def _of_pods(item: dict[str, Any], where: str, accounts: set[str]) -> list[str]:
    template = _object(_object(item, "spec", where), "template", where)
    spec = _object(template, "spec", where)
    containers = [c for field in _PODS for c in _objects(spec, field, where)]
    if not containers:
        raise FormatError(f"cloud objects: {where} has no containers")
    findings = _of_account(spec, where, accounts)
    for container in containers:
        image = str(container.get("image"))
        if not _PINNED.fullmatch(image):
            findings.append(f"{where}: found image {image[:160]}, expected NAME@sha256:DIGEST")
        if _reads_secret(container, where):
            findings.append(f"{where}: has a secret in its environment")
    for volume in _objects(spec, "volumes", where):
        findings += _of_volume(volume, spec, containers, where)
    findings += [
        f"{where}: {field} is not for these" for field in ("hostPID", "hostIPC") if spec.get(field)
    ]
    return findings


def _of_volume(
    volume: dict[str, Any], spec: dict[str, Any], containers: list[dict[str, Any]], where: str
) -> list[str]:
    findings = [
        f"{where}: has a volume of kind {kind[:60]}" for kind in volume if kind not in _VOLUMES
    ]
    if volume.get("hostPath") is None:
        return findings
    path = str(_object(volume, "hostPath", where).get("path"))
    if path == _CREDENTIAL_PATH and _CONTROL_PLANE not in _selector(spec, where):
        findings.append(f"{where}: sees {path} on any node, expected control planes alone")
    if path == _CREDENTIAL_PATH or _lies_below(path, _READ_PATHS):
        if not _only_read(volume, containers, where):
            findings.append(f"{where}: may write {path[:80]} of the node")
    elif not _lies_below(path, _HOST_PATHS):
        findings.append(f"{where}: sees {path[:80]} of the node")
    return findings


def _of_account(spec: dict[str, Any], where: str, accounts: set[str]) -> list[str]:
    """Demand an account of the list; `serviceAccount` is an older name of the same field."""
    named = [spec.get("serviceAccountName")]
    if spec.get("serviceAccount") is not None:
        named.append(spec["serviceAccount"])
    return [
        f"{where}: acts as {str(account)[:60]}, who is not among the objects"
        for account in named
        if not isinstance(account, str) or account not in accounts
    ]


def _reads_secret(container: dict[str, Any], where: str) -> bool:
    for source in _objects(container, "envFrom", where):
        if source.get("secretRef") is not None:
            return True
    for variable in _objects(container, "env", where):
        value = variable.get("valueFrom")
        if (
            value is not None
            and _object(variable, "valueFrom", where).get("secretKeyRef") is not None
        ):
            return True
    return False


def _selector(spec: dict[str, Any], where: str) -> dict[str, Any]:
    return _object(spec, "nodeSelector", where) if spec.get("nodeSelector") is not None else {}


def _lies_below(path: str, roots: tuple[str, ...]) -> bool:
    if any(part in ("", ".", "..") for part in path.split("/")[1:]):
        return False
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _only_read(volume: dict[str, Any], containers: list[dict[str, Any]], where: str) -> bool:
    return all(
        mount.get("readOnly") is True
        for container in containers
        for mount in _objects(container, "volumeMounts", where)
        if mount.get("name") == volume.get("name")
    )


def _object(item: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = item.get(key)
    if not isinstance(found, dict):
        raise FormatError(f"cloud objects: {where}: {key} is no object")
    return found


def _objects(item: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = item.get(key) or []
    if not isinstance(found, list) or any(not isinstance(entry, dict) for entry in found):
        raise FormatError(f"cloud objects: {where}: {key} is no list of objects")
    return found


def _words(item: dict[str, Any], key: str, where: str) -> list[str]:
    found = item.get(key) or []
    if not isinstance(found, list) or any(not isinstance(entry, str) for entry in found):
        raise FormatError(f"cloud objects: {where}: {key} is no list of words")
    return found


def _name(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])[:80]
