"""What in a cluster is of a release's cloud components, and what brings it to another list? Pure.

Whoever applies a list gives each object a label. An object that has the name of one of the list and
not the label is somebody else's: the list is refused, since it would take that object over. What
has the label and is not in the list any more goes. Only kinds of `cloud_objects` are ever looked
at, so that no label can have anything else deleted.
Source: Kubernetes API reference (fields that cannot be changed: "ValidateStorageClassUpdate" and
its like in pkg/apis/*/validation), "Server-Side Apply".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from constellation.base.errors import FormatError, Rejected
from constellation.kube.cloud_objects import kinds

__all__ = [
    "DIGEST_ANNOTATION",
    "LABEL",
    "Change",
    "Reference",
    "change",
    "labelled",
    "parse_found",
    "resources",
]

LABEL: Final = "constellation.internal/cloud-components"
"""On every object of a list; its value is the provider."""
DIGEST_ANNOTATION: Final = "constellation.internal/cloud-objects"
"""On kubeadm-config: SHA-256 of the list that was applied, to its end. For people and operator."""
_WORKLOADS: Final = frozenset({"Deployment", "DaemonSet"})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Reference:
    """An object by its apiVersion, kind, namespace ("" for the cluster's) and name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def resource(self) -> str:
        """Give its kind as kubectl finds exactly that one: `DaemonSet.v1.apps`."""
        return _resource(self.kind, self.api_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What has to be done, in this order.

    `remade` are ours, and differ in a field that the API lets nobody change: deleted, then made
    anew. `apply` is a JSON List, empty bytes where there is none; `kept` is the part of it that the
    API can be asked about beforehand. `gone` are ours and in no list any more.
    """

    remade: tuple[Reference, ...]
    kept: bytes
    apply: bytes
    gone: tuple[Reference, ...]


def resources() -> str:
    """Give every kind that may be in a list, for `kubectl get`."""
    return ",".join(_resource(kind, version) for kind, version in kinds())


def labelled(data: bytes, *, provider: str) -> tuple[dict[str, Any], ...]:
    """Give the objects of a checked list, each with the label; empty bytes: none."""
    return tuple(_with_label(item, provider) for item in json.loads(data)["items"]) if data else ()


def parse_found(data: bytes) -> tuple[dict[str, Any], ...]:
    """Read what `kubectl get -o json` printed: nothing, an object, or a List.

    Raises:
        FormatError: something else.
    """
    if not data.strip():
        return ()
    try:
        found = json.loads(data)
    except ValueError:
        raise FormatError("kubectl get: not JSON") from None
    if not isinstance(found, dict):
        raise FormatError("kubectl get: no object")
    items = found.get("items") if found.get("kind") == "List" else [found]
    if not isinstance(items, list) or not all(_is_object(item) for item in items):
        raise FormatError("kubectl get: an item is no object")
    return tuple(items)


def change(
    wanted: tuple[dict[str, Any], ...],
    *,
    provider: str,
    same_names: tuple[dict[str, Any], ...],
    ours: tuple[dict[str, Any], ...],
) -> Change:
    """Say what brings the cluster to the wanted objects.

    Args:
        wanted: `labelled`.
        provider: the label's value.
        same_names: what the cluster has under the names of `wanted`.
        ours: what it has with the label.

    Raises:
        Rejected: a name of the list is somebody else's; all of them.
    """
    foreign = [
        f"{item['kind']} {item['metadata']['name']}: is in the cluster, and none of the "
        "components of this cloud"
        for item in same_names
        if _labels(item).get(LABEL) != provider
    ]
    if foreign:
        raise Rejected(
            tuple(foreign),
            hint="the release gives its objects other names, or yours is deleted first",
        )
    before = {_reference(item): item for item in same_names}
    remade = tuple(
        key
        for item in wanted
        if (key := _reference(item)) in before and _fixed(before[key]) != _fixed(item)
    )
    there = {_reference(item) for item in wanted}
    allowed = {(version, kind) for kind, version in kinds()}
    gone = {
        key
        for item in ours
        if (key := _reference(item)) not in there
        and (key.api_version, key.kind) in allowed
        and _labels(item).get(LABEL) == provider
    }
    return Change(
        remade=remade,
        kept=_list(tuple(item for item in wanted if _reference(item) not in remade)),
        apply=_list(wanted),
        # what runs first: nothing goes on without its rights
        gone=tuple(sorted(gone, key=lambda key: (key.kind not in _WORKLOADS, key))),
    )


def _fixed(item: dict[str, Any]) -> tuple[Any, ...]:
    """Give the fields that the API lets nobody change, with its own defaults."""
    spec = item.get("spec") or {}
    match item["kind"]:
        case "StorageClass":
            return (
                item.get("provisioner"),
                item.get("parameters") or {},
                item.get("reclaimPolicy") or "Delete",
                item.get("volumeBindingMode") or "Immediate",
            )
        case "CSIDriver":
            attach = spec.get("attachRequired")
            modes = spec.get("volumeLifecycleModes") or ["Persistent"]
            return (True if attach is None else attach, sorted(modes))
        case "RoleBinding" | "ClusterRoleBinding":
            role = item.get("roleRef") or {}
            return (role.get("kind"), role.get("name"))
        case "Deployment" | "DaemonSet":
            return (spec.get("selector"),)
        case "ConfigMap" if item.get("immutable"):
            return (item.get("data") or {}, item.get("binaryData") or {})
        case _:
            return ()


def _list(items: tuple[dict[str, Any], ...]) -> bytes:
    if not items:
        return b""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}).encode()


def _with_label(item: dict[str, Any], provider: str) -> dict[str, Any]:
    metadata = item["metadata"]
    return {**item, "metadata": {**metadata, "labels": {**_labels(item), LABEL: provider}}}


def _labels(item: dict[str, Any]) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _reference(item: dict[str, Any]) -> Reference:
    metadata = item["metadata"]
    return Reference(
        api_version=item["apiVersion"],
        kind=item["kind"],
        namespace=metadata.get("namespace") or "",
        name=metadata["name"],
    )


def _resource(kind: str, api_version: str) -> str:
    group, _, version = api_version.rpartition("/")
    return f"{kind}.{version}.{group}" if group else kind


def _is_object(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    metadata = item.get("metadata")
    return (
        isinstance(metadata, dict)
        and isinstance(metadata.get("name"), str)
        and isinstance(item.get("kind"), str)
        and isinstance(item.get("apiVersion"), str)
        and isinstance(metadata.get("labels") or {}, dict)
    )
