"""Which permissions make and remove the resources of `infra/gcp`, by type of resource.

Terraform acts with the user's own credentials; `GcpCloud.preflight` asks for these before it does.
Source: Compute Engine API v1, each method's "IAM permissions"; a machine's template is judged as a
machine (instanceTemplates.insert).
"""

from __future__ import annotations

from typing import Final

__all__ = ["NEEDS", "asked"]

_NETWORK: Final = (
    "google_compute_network",
    "google_compute_subnetwork",
    "google_compute_router",
    "google_compute_router_nat",
)
"""Made unless the configuration names a network that exists."""
_ELSEWHERE: Final = frozenset({"iam.serviceAccounts.actAs", "compute.images.useReadOnly"})
"""May be granted on the one account or image alone: the project knows nothing of it then."""
_OF_NETWORK: Final = frozenset({"compute.subnetworks.use", "compute.networks.updatePolicy"})
"""Are the network's, which may lie in another project."""


def _whole(kind: str, *more: str) -> tuple[str, ...]:
    return (*(f"compute.{kind}.{verb}" for verb in ("create", "get", "delete")), *more)


NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "google_compute_network": _whole("networks"),
    "google_compute_subnetwork": _whole("subnetworks", "compute.networks.updatePolicy"),
    "google_compute_router": _whole("routers", "compute.networks.updatePolicy"),
    "google_compute_router_nat": ("compute.routers.update",),
    "google_compute_firewall": _whole(
        "firewalls", "compute.firewalls.update", "compute.networks.updatePolicy"
    ),
    "google_compute_address": _whole(
        "addresses", "compute.addresses.createInternal", "compute.subnetworks.use"
    ),
    "google_compute_region_health_check": _whole("regionHealthChecks"),
    "google_compute_region_backend_service": _whole(
        "regionBackendServices",
        "compute.regionBackendServices.update",
        "compute.regionHealthChecks.useReadOnly",
        "compute.instanceGroups.use",
    ),
    "google_compute_forwarding_rule": _whole(
        "forwardingRules",
        "compute.regionBackendServices.use",
        "compute.addresses.use",
        "compute.addresses.useInternal",
        "compute.subnetworks.use",
    ),
    "google_compute_instance_template": _whole(
        "instanceTemplates",
        "compute.instances.create",
        "compute.instances.setMetadata",
        "compute.instances.setTags",
        "compute.instances.setLabels",
        "compute.disks.create",
        "compute.images.useReadOnly",
        "compute.subnetworks.use",
        "iam.serviceAccounts.actAs",
    ),
    "google_compute_region_instance_group_manager": _whole(
        "instanceGroupManagers",
        "compute.instanceGroupManagers.update",
        "compute.instanceTemplates.useReadOnly",
        "compute.instances.delete",
    ),
}


def asked(*, own_network: bool) -> dict[str, tuple[str, ...]]:
    """Give what the project is asked about; `own_network`: the module makes the network."""
    other = _ELSEWHERE if own_network else _ELSEWHERE | _OF_NETWORK
    return {
        kind: tuple(p for p in permissions if p not in other)
        for kind, permissions in NEEDS.items()
        if own_network or kind not in _NETWORK
    }
