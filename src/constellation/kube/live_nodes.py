"""Whose kubelet may make a Node object or ask for a certificate: live members'. Pure.

A kubelet's client certificate outlives its node's removal by days, and Kubernetes itself would take
it back: it may create the Node object that has its name, and renew its certificate for ever. So
each API server asks a list before both (ValidatingAdmissionPolicy), which JoinServices keep in step
with the membership that they have verified; without a list both are refused. Nothing else is
decided by it: whoever may write it gains no more than that a removed node's kubelet registers.
Source: Kubernetes, "Validating Admission Policy"; kubelet's user is `system:node:NAME` ("Using Node
Authorization").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.kube.membership import Membership

__all__ = ["NAME", "NAMESPACE", "SEQUENCE", "gate", "names", "newer"]

NAME, NAMESPACE = "constellation-live-nodes", "kube-system"
SEQUENCE = "constellation.internal/join-log-sequence"
"""Annotation: up to which record of the join log the list is."""

_USER = "system:node:"
_IS_LIVE = (
    f"has(params.data) && request.userInfo.username.startsWith('{_USER}') && "
    f"request.userInfo.username.substring({len(_USER)}) in params.data"
)


def gate() -> list[dict[str, Any]]:
    """Give the policy and its binding, for `kubectl apply`."""
    policy = {
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {
            "resourceRules": [
                _creates("", "nodes"),
                _creates("certificates.k8s.io", "certificatesigningrequests"),
            ]
        },
        "matchConditions": [
            {"name": "kubelets", "expression": "'system:nodes' in request.userInfo.groups"}
        ],
        "validations": [
            {
                "expression": _IS_LIVE,
                "message": "this kubelet's node is no member of the cluster (any more)",
                "reason": "Forbidden",
            }
        ],
    }
    binding = {
        "policyName": NAME,
        "paramRef": {
            "name": NAME,
            "namespace": NAMESPACE,
            "parameterNotFoundAction": "Deny",
        },
        "validationActions": ["Deny"],
    }
    return [
        _object("ValidatingAdmissionPolicy", policy),
        _object("ValidatingAdmissionPolicyBinding", binding),
    ]


def names(membership: Membership) -> dict[str, str]:
    """Give the list's data: the names of nodes and of those that have a ticket."""
    reserved = (r.member for r in membership.reservations)
    return {m.name: "" for m in (*membership.nodes, *reserved)}


def newer(membership: Membership, *, data: Mapping[str, str], annotation: str) -> bool:
    """Say whether a membership must be written over the list that the API has.

    A JoinService that is behind leaves what a faster one wrote; a list that says to be newer than
    the log can be is written over once the log reaches it.
    """
    known = int(annotation) if annotation.isascii() and annotation.isdigit() else -1
    return known <= membership.sequence and dict(data) != names(membership)


def _creates(group: str, resource: str) -> dict[str, list[str]]:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": [resource],
    }


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": NAME},
        "spec": spec,
    }
