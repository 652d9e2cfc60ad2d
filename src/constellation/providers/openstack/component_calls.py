"""Which calls of OpenStack do its own controller manager and Cinder's CSI driver make?

Not our programs: this table is what the application credential of theirs allows
(`infra/iam/openstack/component-rules.json`), and nothing of ours has that credential. `SEEN`: a
drill saw it made (`make drill-openstack-programs`, calls kept in
bench/results/drill-openstack-programs.json, which a test compares); `SOURCE`: the programs' source
has it, on a way that the drill does not go. A rule names no single machine, volume or load
balancer: Keystone knows of services, methods and paths alone. What only an annotation or another
class asks for (security groups of its own, certificates, snapshots, backups, shared load balancers)
is not allowed. Tokens and what versions there are need no rule.
Sources: cloud-provider-openstack v1.36.0, pkg/openstack, pkg/csi/cinder, with gophercloud v2.12.0
(paths; Octavia's as v2.0); Keystone, "Application credentials", access rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from constellation.providers.openstack.calls import BALANCER, COMPUTE, NETWORK, VOLUME

__all__ = ["CALLS", "ComponentCall", "Known", "Whose", "component_rules"]


class Known(StrEnum):
    """How it is known that a call is made."""

    SEEN = "seen"
    SOURCE = "source"


class Whose(StrEnum):
    """Which of the components makes a call."""

    CONTROLLER = "controller manager"
    DRIVER = "CSI driver"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentCall:
    """One call: service, method, path with "*" for what differs, who makes it and why."""

    service: str
    method: str
    path: str
    whose: Whose
    why: str
    known: Known


def _call(
    service: str, method: str, path: str, whose: Whose, why: str, *, known: Known = Known.SEEN
) -> ComponentCall:
    return ComponentCall(
        service=service, method=method, path=path, whose=whose, why=why, known=known
    )


_C, _D = Whose.CONTROLLER, Whose.DRIVER
_LB: Final = "/v2.0/lbaas"
_SERVER: Final = "/v2.1/servers/*"
_VOLUMES: Final = "/v3/*/volumes"

CALLS: Final = (
    _call(COMPUTE, "GET", _SERVER, Whose.BOTH, "does a node's machine still exist"),
    _call(COMPUTE, "POST", f"{_SERVER}/os-volume_attachments", _D, "a volume comes to a machine"),
    _call(COMPUTE, "DELETE", f"{_SERVER}/os-volume_attachments/*", _D, "a volume leaves a machine"),
    _call(VOLUME, "GET", f"{_VOLUMES}/detail", _D, "is a claim's volume there already"),
    _call(VOLUME, "POST", _VOLUMES, _D, "a volume for a claim"),
    _call(VOLUME, "GET", f"{_VOLUMES}/*", _D, "where it is attached, and whether it is ready"),
    _call(VOLUME, "POST", f"{_VOLUMES}/*/action", _D, "a claim grows"),
    _call(VOLUME, "DELETE", f"{_VOLUMES}/*", _D, "its claim is gone"),
    _call(BALANCER, "GET", f"{_LB}/loadbalancers", _C, "is a Service's load balancer there"),
    _call(BALANCER, "POST", f"{_LB}/loadbalancers", _C, "one for each Service, with its parts"),
    _call(BALANCER, "GET", f"{_LB}/loadbalancers/*", _C, "its state, before and after a change"),
    _call(BALANCER, "PUT", f"{_LB}/loadbalancers/*", _C, "its tags", known=Known.SOURCE),
    _call(BALANCER, "DELETE", f"{_LB}/loadbalancers/*", _C, "its Service is gone"),
    _call(BALANCER, "GET", f"{_LB}/listeners", _C, "its ports, before a change"),
    _call(BALANCER, "POST", f"{_LB}/listeners", _C, "a new port of a Service"),
    _call(BALANCER, "PUT", f"{_LB}/listeners/*", _C, "who may reach a port, timeouts"),
    _call(BALANCER, "DELETE", f"{_LB}/listeners/*", _C, "a port that goes"),
    _call(BALANCER, "GET", f"{_LB}/pools", _C, "which nodes a port leads to"),
    _call(BALANCER, "POST", f"{_LB}/pools", _C, "the nodes of a new port"),
    _call(BALANCER, "PUT", f"{_LB}/pools/*", _C, "another way to choose", known=Known.SOURCE),
    _call(BALANCER, "DELETE", f"{_LB}/pools/*", _C, "the nodes of a port that goes"),
    _call(BALANCER, "GET", f"{_LB}/pools/*/members", _C, "which nodes those are, before a change"),
    _call(BALANCER, "PUT", f"{_LB}/pools/*/members", _C, "nodes that come and go"),
    _call(NETWORK, "GET", "/v2.0/floatingips", _C, "has a load balancer an outer address"),
    _call(NETWORK, "POST", "/v2.0/floatingips", _C, "an outer address of a load balancer"),
    _call(NETWORK, "PUT", "/v2.0/floatingips/*", _C, "a Service is inner now", known=Known.SOURCE),
    _call(NETWORK, "DELETE", "/v2.0/floatingips/*", _C, "its Service is gone"),
    _call(NETWORK, "GET", "/v2.0/security-groups", _C, "whether an earlier one made a group"),
)


def component_rules() -> tuple[dict[str, str], ...]:
    """Give the rules of the components' application credential, as Keystone takes them."""
    return tuple({"service": c.service, "method": c.method, "path": c.path} for c in CALLS)
