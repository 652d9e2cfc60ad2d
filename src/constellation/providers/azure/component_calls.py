"""Which calls do Azure's own components make, each with the action that a role must allow for it?

Not our programs: what `infra/iam/azure` allows them beside the calls of `calls`, where the conf
wants them. Seen in the kept run of each (`make drill-cloud-azure`), or, where noted, in the
program's source alone. Sources: sigs.k8s.io/cloud-provider-azure v1.36.3, pkg/provider, and its
page "Azure Permissions"; Microsoft, "Azure permissions for Networking", "for Compute".
"""

from __future__ import annotations

from typing import Final

from constellation.providers.calls import Call

__all__ = ["CONTROLLER", "DRIVER", "OF_SUBSCRIPTION"]

_SUBSCRIPTION: Final = "/subscriptions/{subscription}"
_GROUP: Final = f"{_SUBSCRIPTION}/resourceGroups/{{resource_group}}/providers"
_NETWORK: Final = "Microsoft.Network"
_SETS: Final = "Microsoft.Compute/virtualMachineScaleSets"
_VERBS: Final = {"GET": "read", "PUT": "write", "DELETE": "delete"}


def _call(method: str, kind: str, path: str, why: str, *linked: str) -> Call:
    return Call(
        method=method,
        path=f"{_GROUP}/{path}",
        permission=f"{kind}/{_VERBS[method]}",
        why=why,
        repeatable=True,
        linked=linked,
    )


OF_SUBSCRIPTION: Final = (
    Call(
        method="GET",
        path=f"{_SUBSCRIPTION}/providers/Microsoft.Compute",
        permission="Microsoft.Resources/subscriptions/providers/read",
        why="which zones a region has: the controller manager does not start without",
        repeatable=True,
    ),
)
"""Of no resource group: the role's scope is the subscription, and it allows nothing else."""

_BALANCERS: Final = f"{_NETWORK}/loadBalancers"
_POOLS: Final = f"{_BALANCERS}/backendAddressPools"
_ADDRESSES: Final = f"{_NETWORK}/publicIPAddresses"
_RULES: Final = f"{_NETWORK}/networkSecurityGroups"
_SUBNETS: Final = f"{_NETWORK}/virtualNetworks/subnets"
_LINKS: Final = f"{_NETWORK}/privateLinkServices"
_POOL: Final = f"{_BALANCERS}/{{balancer}}/backendAddressPools/{{pool}}"

CONTROLLER: Final = (
    *OF_SUBSCRIPTION,
    _call("GET", _SETS, _SETS, "which scale set a node's machine is of"),
    _call(
        "GET", f"{_SETS}/virtualMachines", f"{_SETS}/{{scale_set}}/virtualMachines",
        "does a node's machine still exist, and does it run",
    ),
    _call("GET", _BALANCERS, _BALANCERS, "is a Service's load balancer there, before a change"),
    _call(
        "PUT", _BALANCERS, f"{_BALANCERS}/{{balancer}}",
        "a Service was made, changed, or is gone",
        f"{_ADDRESSES}/join/action", f"{_SUBNETS}/join/action",
    ),
    _call("DELETE", _BALANCERS, f"{_BALANCERS}/{{balancer}}", "the last Service is gone"),
    _call(
        "PUT", _POOLS, _POOL, "a node came or went",
        f"{_NETWORK}/virtualNetworks/joinLoadBalancer/action",
    ),
    _call("GET", _ADDRESSES, _ADDRESSES, "has a Service an address already"),
    _call("PUT", _ADDRESSES, f"{_ADDRESSES}/{{address}}", "a new Service from outside"),
    _call("DELETE", _ADDRESSES, f"{_ADDRESSES}/{{address}}", "its Service is gone"),
    _call("GET", _RULES, f"{_RULES}/{{group}}", "who may reach nodes, before a change"),
    _call(
        "PUT", _RULES, f"{_RULES}/{{group}}", "let users reach a Service; close that again",
        f"{_NETWORK}/applicationSecurityGroups/joinNetworkSecurityRule/action",
    ),
    _call("GET", _LINKS, _LINKS, "does a private link hold a load balancer that is to go"),
    _call(
        "GET", _SUBNETS, f"{_NETWORK}/virtualNetworks/{{network}}/subnets/{{subnet}}",
        "where a load balancer inside stands",
    ),
)  # fmt: skip
"""Of `azure-cloud-controller-manager`."""

_DISKS: Final = "Microsoft.Compute/disks"
_DISK: Final = f"{_DISKS}/{{disk}}"
_MACHINES: Final = f"{_SETS}/virtualMachines"
_MACHINE: Final = f"{_SETS}/{{scale_set}}/virtualMachines/{{vm}}"

DRIVER: Final = (
    _call("GET", _SETS, _SETS, "which scale set a node's machine is of"),
    _call(
        "GET", _MACHINES, f"{_SETS}/{{scale_set}}/virtualMachines",
        "which machine a node is, and which disks it has",
    ),
    _call(
        "PUT", _MACHINES, _MACHINE, "attach a volume's disk to a node, and detach it",
        "Microsoft.Network/virtualNetworks/subnets/join/action",
        "Microsoft.Network/networkSecurityGroups/join/action",
        "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
        "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
    ),
    _call("GET", _DISKS, _DISK, "is a volume's disk there, and whose"),
    _call("PUT", _DISKS, _DISK, "make a volume's disk, make it larger"),
    _call("DELETE", _DISKS, _DISK, "its volume is gone"),
)  # fmt: skip
"""Of `azuredisk-csi-driver`'s controller; on nodes it asks the metadata service alone."""
