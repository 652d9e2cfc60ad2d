"""The calls of Google Cloud that our programs make, each with the permission that it needs.

Source: Compute Engine API v1, reference of each method ("Authorization requires the following IAM
permission"); paths are below https://compute.googleapis.com/compute/v1. Cloud Resource Manager API
v1 for `TEST_PERMISSIONS`, which is below https://cloudresourcemanager.googleapis.com/v1.
"""

from __future__ import annotations

from constellation.providers.calls import Call

__all__ = [
    "CONSOLE",
    "CREATE_INSTANCES",
    "DELETE_INSTANCES",
    "GET_IMAGE",
    "GET_MACHINE_TYPE",
    "GET_OPERATION",
    "GET_REGION",
    "LIST_GROUPS",
    "LIST_INSTANCES",
    "METADATA_CALLS",
    "NODE_GROUP_CALLS",
    "TEST_PERMISSIONS",
    "WORKSTATION_CALLS",
]

LIST_INSTANCES = Call(
    method="GET",
    path="/projects/{project}/aggregated/instances",
    permission="compute.instances.list",
    why="a node looks for its cluster's control planes; JoinService compares what a node says",
    repeatable=True,
)
LIST_GROUPS = Call(
    method="GET",
    path="/projects/{project}/aggregated/instanceGroupManagers",
    permission="compute.instanceGroupManagers.list",
    why="the operator finds the managed instance group of a node group, and its region",
    repeatable=True,
)
# the caller names the instance, so that sending it twice is refused, not done twice
CREATE_INSTANCES = Call(
    method="POST",
    path="/projects/{project}/regions/{region}/instanceGroupManagers/{group}/createInstances",
    permission="compute.instanceGroupManagers.update",
    why="the operator adds one machine to a group",
    repeatable=True,
)
DELETE_INSTANCES = Call(
    method="POST",
    path="/projects/{project}/regions/{region}/instanceGroupManagers/{group}/deleteInstances",
    permission="compute.instanceGroupManagers.update",
    why="the operator removes one machine, which drains it at the load balancer first",
    repeatable=True,
)
GET_OPERATION = Call(
    method="GET",
    path="/projects/{project}/regions/{region}/operations/{operation}",
    permission="compute.regionOperations.get",
    why="the operator learns whether a group's change was accepted",
    repeatable=True,
)

METADATA_CALLS = (LIST_INSTANCES,)
NODE_GROUP_CALLS = (
    LIST_INSTANCES,
    LIST_GROUPS,
    CREATE_INSTANCES,
    DELETE_INSTANCES,
    GET_OPERATION,
)

# what `constellation` asks with the user's own credentials, beside what Terraform does
GET_REGION = Call(
    method="GET",
    path="/projects/{project}/regions/{region}",
    permission="compute.regions.get",
    why="whether the quotas have room for the machines, before anything is made",
    repeatable=True,
)
GET_MACHINE_TYPE = Call(
    method="GET",
    path="/projects/{project}/zones/{zone}/machineTypes/{kind}",
    permission="compute.machineTypes.get",
    why="whether a zone has the machines, before anything is made",
    repeatable=True,
)
GET_IMAGE = Call(
    method="GET",
    path="/projects/{project}/global/images/{image}",
    permission="compute.images.get",
    why="whether the node image is there and for confidential machines",
    repeatable=True,
)
CONSOLE = Call(
    method="GET",
    path="/projects/{project}/zones/{zone}/instances/{instance}/serialPort",
    permission="compute.instances.getSerialPortOutput",
    why="what a machine that does not come up has printed",
    repeatable=True,
)
# everybody may ask it about themselves
TEST_PERMISSIONS = Call(
    method="POST",
    path="/projects/{project}:testIamPermissions",
    permission="",
    why="whether Terraform may make what the module names, before anything is made",
    repeatable=True,
)
WORKSTATION_CALLS = (
    LIST_INSTANCES,
    GET_REGION,
    GET_MACHINE_TYPE,
    GET_IMAGE,
    CONSOLE,
    TEST_PERMISSIONS,
)
