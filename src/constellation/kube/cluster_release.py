"""Custom resources of a roll-out: `ClusterRelease` (what goes on) and `NodeGroup` (how many). Pure.

Nothing here decides trust: which image and version nodes get stands in the signed cluster policy.
A NodeGroup says how many machines of it there shall be. The one ClusterRelease, `cluster`, is
written by the operator: its status is for people, its orders say what a node's own operator shall
tell its upgrade agent, which obeys the policy on its disk and not the order alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from constellation.base import decode
from constellation.base.errors import FormatError
from constellation.kube.membership import NodeRole  # noqa: TC001 - decode reads the hints
from constellation.kube.rollout import Bounds, NodeGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "API_GROUP",
    "API_VERSION",
    "LEAVING_TAINT",
    "RELEASE_NAME",
    "NodeStatus",
    "Order",
    "OrderKind",
    "Phase",
    "ReleaseStatus",
    "Report",
    "definitions",
    "dump_group",
    "dump_order",
    "dump_report",
    "dump_status",
    "group_object_name",
    "group_objects",
    "parse_group",
    "parse_orders",
    "parse_reports",
    "parse_status",
]

API_GROUP: Final = "constellation.internal"
API_VERSION: Final = "v1alpha1"
RELEASE_NAME: Final = "cluster"
"""Name of the one ClusterRelease."""
LEAVING_TAINT: Final = "ToBeDeletedByClusterAutoscaler"
"""Taint of a node that is being removed: kube-proxy's health check fails from then on.

Source: Kubernetes, pkg/proxy/healthcheck, `proxier_health.go` (KEP-3836)."""

_MOST_NODES_A_GROUP = 1000
_MAX_REASON = 500
_NOT_A_NAME = re.compile(r"[^a-z0-9-]")


class Phase(StrEnum):
    """What the cluster as a whole does."""

    IDLE = "idle"
    ROLLING = "rolling"
    STOPPED = "stopped"


class OrderKind(StrEnum):
    """What a control plane's own operator shall tell its upgrade agent."""

    UPGRADE = "upgrade"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one control plane shall do, under which policy."""

    kind: OrderKind
    policySerial: int  # noqa: N815 - as it stands in the object
    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an order: `reason` says why it was not done yet, empty where it was."""

    order: Order
    done: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A node for people; `since` (RFC 3339) is when health or step became what they are."""

    name: str
    image: str
    kubelet: str
    apiServer: str  # noqa: N815 - as it stands in the object
    health: str
    step: str
    since: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStatus:
    """What the leading operator sees and does."""

    phase: Phase
    policySerial: int  # noqa: N815 - as it stands in the object
    message: str
    nodes: tuple[NodeStatus, ...]


def group_object_name(group: str) -> str:
    """Give the name of a group's object: "control_plane_default" → "control-plane-default"."""
    return _NOT_A_NAME.sub("-", group.lower())


def dump_group(group: NodeGroup) -> dict[str, Any]:
    """Write a NodeGroup's spec; null in a merge patch takes a field away."""
    bounds = group.bounds
    return {
        "group": group.name,
        "role": str(group.role),
        "size": group.size,
        "surge": group.surge,
        "unavailable": group.unavailable,
        "min": bounds.least if bounds is not None else None,
        "max": bounds.most if bounds is not None else None,
        "leaving": list(group.leaving),
    }


def group_objects(groups: Iterable[NodeGroup]) -> bytes:
    """Give the objects of new groups as one JSON List, for `kubectl apply`."""
    items = [
        {
            "apiVersion": f"{API_GROUP}/{API_VERSION}",
            "kind": "NodeGroup",
            "metadata": {"name": group_object_name(group.name)},
            "spec": {key: value for key, value in dump_group(group).items() if value is not None},
        }
        for group in groups
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode()


def parse_group(spec: Any, *, what: str, version: str = "") -> NodeGroup:
    """Read a NodeGroup's spec. Raises FormatError: it is none, or not one that can be rolled."""
    wanted = decode.load_value(_GroupSpec, spec, what=what)
    if not 0 <= wanted.size <= _MOST_NODES_A_GROUP:
        raise FormatError(f"{what}: size {wanted.size}, want 0 to {_MOST_NODES_A_GROUP}")
    if len(wanted.leaving) > _MOST_NODES_A_GROUP:
        raise FormatError(f"{what}: {len(wanted.leaving)} nodes leave, want {_MOST_NODES_A_GROUP}")
    if (wanted.min is None) != (wanted.max is None):
        raise FormatError(f"{what}: min without max or max without min, want both or none")
    try:
        bounds = None
        if wanted.min is not None and wanted.max is not None:
            bounds = Bounds(least=wanted.min, most=min(wanted.max, _MOST_NODES_A_GROUP))
        return NodeGroup(
            name=wanted.group,
            role=wanted.role,
            size=wanted.size,
            surge=wanted.surge,
            unavailable=wanted.unavailable,
            bounds=bounds,
            leaving=wanted.leaving,
            version=version,
        )
    except ValueError as error:
        raise FormatError(f"{what}: {error}") from None


def dump_order(order: Order | None) -> dict[str, Any] | None:
    """Write an order for a merge patch; None takes it back."""
    if order is None:
        return None
    return {
        "kind": str(order.kind),
        "policySerial": order.policySerial,
        "kubernetes": order.kubernetes,
    }


def parse_orders(spec: Any) -> dict[str, Order]:
    """Read the orders, by node. Raises FormatError."""
    found = (spec or {}).get("orders") or {}
    return decode.load_value(dict[str, Order], found, what="ClusterRelease: orders")


def dump_report(report: Report) -> dict[str, Any]:
    """Write a report for a merge patch."""
    return {
        "order": dump_order(report.order),
        "done": report.done,
        "reason": report.reason[:_MAX_REASON],
    }


def parse_reports(status: Any) -> dict[str, Report]:
    """Read the reports, by node. Raises FormatError."""
    found = (status or {}).get("reports") or {}
    return decode.load_value(dict[str, Report], found, what="ClusterRelease: reports")


def dump_status(status: ReleaseStatus) -> dict[str, Any]:
    """Write the status for a merge patch; lists are replaced as a whole, reports stay."""
    return {
        "phase": str(status.phase),
        "policySerial": status.policySerial,
        "message": status.message,
        "nodes": [
            {
                "name": n.name,
                "image": n.image,
                "kubelet": n.kubelet,
                "apiServer": n.apiServer,
                "health": n.health,
                "step": n.step,
                "since": n.since,
                "reason": n.reason[:_MAX_REASON],
            }
            for n in status.nodes
        ],
    }


def parse_status(status: Any) -> ReleaseStatus | None:
    """Read a status; None: the operator has written none yet. Raises FormatError."""
    if not status or "phase" not in status:
        return None
    known = {k: v for k, v in status.items() if k != "reports"}
    return decode.load_value(ReleaseStatus, known, what="ClusterRelease: status")


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupSpec:
    group: str
    role: NodeRole
    size: int
    surge: int = 1
    unavailable: int = 0
    min: int | None = None
    max: int | None = None
    leaving: tuple[str, ...] = ()


def definitions() -> list[dict[str, Any]]:
    """Give both CustomResourceDefinitions."""
    text = {"type": "string"}
    number = {"type": "integer", "format": "int64"}
    order = _object({"kind": text, "policySerial": number, "kubernetes": text})
    report = _object({"order": order, "done": {"type": "boolean"}, "reason": text})
    words = ("name", "image", "kubelet", "apiServer", "health", "step", "since", "reason")
    node = _object(dict.fromkeys(words, text))
    release = _object(
        {
            "spec": _object({"orders": {"type": "object", "additionalProperties": order}}),
            "status": _object(
                {
                    "phase": text,
                    "policySerial": number,
                    "message": text,
                    "nodes": {"type": "array", "items": node},
                    "reports": {"type": "object", "additionalProperties": report},
                }
            ),
        }
    )
    count = {"type": "integer", "format": "int32", "minimum": 0, "maximum": _MOST_NODES_A_GROUP}
    counts = ("size", "surge", "unavailable", "min", "max")
    leaving = {"type": "array", "maxItems": _MOST_NODES_A_GROUP, "items": text}
    spec = _object(
        {"group": text, "role": text, **dict.fromkeys(counts, count), "leaving": leaving}
    )
    spec["required"] = ["group", "role", "size"]
    return [
        _definition(
            "ClusterRelease",
            release,
            columns=(
                ("Phase", ".status.phase", "string"),
                ("Message", ".status.message", "string"),
            ),
        ),
        _definition(
            "NodeGroup",
            _object({"spec": spec}),
            columns=(
                ("Role", ".spec.role", "string"),
                ("Size", ".spec.size", "integer"),
                ("Min", ".spec.min", "integer"),
                ("Max", ".spec.max", "integer"),
            ),
        ),
    ]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _definition(
    kind: str, schema: dict[str, Any], *, columns: tuple[tuple[str, str, str], ...]
) -> dict[str, Any]:
    singular = kind.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{singular}s.{API_GROUP}"},
        "spec": {
            "group": API_GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": f"{singular}s",
                "singular": singular,
            },
            "versions": [
                {
                    "name": API_VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path}
                        for name, path, type_ in columns
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
