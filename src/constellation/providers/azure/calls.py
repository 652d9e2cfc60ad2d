"""The calls of Azure that our programs make, each with the action that a role must allow for it.

Source: Azure REST API reference, Compute (API version 2024-07-01) and Network (2018-10-01 for
scale sets' interfaces); "Azure permissions for Compute". Paths are below
https://management.azure.com.
"""

from __future__ import annotations

from typing import Final

from constellation.providers.calls import Call

__all__ = [
    "API_VERSIONS",
    "CONSOLE",
    "DELETE_VMS",
    "GET_GROUP",
    "GET_IMAGE",
    "GET_VM",
    "LIST_INTERFACES",
    "LIST_PERMISSIONS",
    "LIST_SETS",
    "LIST_SIZES",
    "LIST_USAGES",
    "LIST_VMS",
    "METADATA_CALLS",
    "NODE_GROUP_CALLS",
    "RESIZE_SET",
    "UPDATE_VM",
    "WORKSTATION_CALLS",
]

_SETS = (
    "/subscriptions/{subscription}/resourceGroups/{resource_group}"
    "/providers/Microsoft.Compute/virtualMachineScaleSets"
)
_ACTION = "Microsoft.Compute/virtualMachineScaleSets"
# what a scale set's model, or a machine's, refers to: whoever writes it must be allowed to
_JOINED = (
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
)

LIST_SETS = Call(
    method="GET",
    path=_SETS,
    permission=f"{_ACTION}/read",
    why="a node and the operator find the scale sets of their cluster by its tag",
    repeatable=True,
)
LIST_VMS = Call(
    method="GET",
    path=_SETS + "/{scale_set}/virtualMachines",
    permission=f"{_ACTION}/virtualMachines/read",
    why="a node looks for its cluster's control planes; JoinService compares what a node says",
    repeatable=True,
)
LIST_INTERFACES = Call(
    method="GET",
    path=_SETS + "/{scale_set}/networkInterfaces",
    permission=f"{_ACTION}/networkInterfaces/read",
    why="machines' addresses, which the list of machines does not have",
    repeatable=True,
)
RESIZE_SET = Call(
    method="PATCH",
    path=_SETS + "/{scale_set}",
    permission=f"{_ACTION}/write",
    why="the operator adds one machine to a group",
    repeatable=True,
    linked=_JOINED,
)
GET_VM = Call(
    method="GET",
    path=_SETS + "/{scale_set}/virtualMachines/{vm}",
    permission=f"{_ACTION}/virtualMachines/read",
    why="the operator reads a machine's network profile before it changes it",
    repeatable=True,
)
UPDATE_VM = Call(
    method="PUT",
    path=_SETS + "/{scale_set}/virtualMachines/{vm}",
    permission=f"{_ACTION}/virtualMachines/write",
    why="the operator takes a machine out of the load balancer's pools",
    repeatable=True,
    linked=_JOINED,
)
DELETE_VMS = Call(
    method="POST",
    path=_SETS + "/{scale_set}/delete",
    permission=f"{_ACTION}/delete/action",
    why="the operator removes one machine of a group",
    repeatable=True,
)

# what `constellation` asks with the user's own credentials, beside what Terraform does
GET_GROUP = Call(
    method="GET",
    path="/subscriptions/{subscription}/resourceGroups/{resource_group}",
    permission="Microsoft.Resources/subscriptions/resourceGroups/read",
    why="whether the resource group is there, before anything is made",
    repeatable=True,
)
LIST_USAGES = Call(
    method="GET",
    path="/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/usages",
    permission="Microsoft.Compute/locations/usages/read",
    why="whether the quotas have room for the machines, before anything is made",
    repeatable=True,
)
GET_IMAGE = Call(
    method="GET",
    path="/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.Compute"
    "/galleries/{gallery}/images/{image}",
    permission="Microsoft.Compute/galleries/images/read",
    why="whether the node image is there and for confidential machines, before anything is made",
    repeatable=True,
)
LIST_SIZES = Call(
    method="GET",
    path="/subscriptions/{subscription}/providers/Microsoft.Compute/skus",
    permission="Microsoft.Compute/skus/read",
    why="whether the zones have the machines for this subscription, before anything is made",
    repeatable=True,
)
LIST_PERMISSIONS = Call(
    method="GET",
    path="/subscriptions/{subscription}/resourceGroups/{resource_group}"
    "/providers/Microsoft.Authorization/permissions",
    permission="Microsoft.Authorization/permissions/read",
    why="whether Terraform may make what the module names, before anything is made",
    repeatable=True,
)
CONSOLE = Call(
    method="POST",
    path=_SETS + "/{scale_set}/virtualMachines/{vm}/retrieveBootDiagnosticsData",
    permission=f"{_ACTION}/virtualMachines/retrieveBootDiagnosticsData/action",
    why="what a machine that does not come up has printed",
    repeatable=True,
)

_COMPUTE: Final = "2024-07-01"
API_VERSIONS: Final = {
    LIST_SETS: _COMPUTE,
    LIST_VMS: _COMPUTE,
    LIST_INTERFACES: "2018-10-01",
    RESIZE_SET: _COMPUTE,
    GET_VM: _COMPUTE,
    UPDATE_VM: _COMPUTE,
    DELETE_VMS: _COMPUTE,
    GET_GROUP: "2021-04-01",
    LIST_USAGES: _COMPUTE,
    GET_IMAGE: "2023-07-03",
    LIST_SIZES: "2021-07-01",
    LIST_PERMISSIONS: "2022-04-01",
    CONSOLE: _COMPUTE,
}

METADATA_CALLS = (LIST_SETS, LIST_VMS, LIST_INTERFACES)
NODE_GROUP_CALLS = (*METADATA_CALLS, RESIZE_SET, GET_VM, UPDATE_VM, DELETE_VMS)
WORKSTATION_CALLS = (
    *METADATA_CALLS,
    GET_GROUP,
    LIST_USAGES,
    GET_IMAGE,
    LIST_SIZES,
    LIST_PERMISSIONS,
    CONSOLE,
)
