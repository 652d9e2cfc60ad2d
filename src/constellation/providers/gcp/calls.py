"""The calls of Google Cloud that our programs make, each with the permission that it needs.

Source: Compute Engine API v1, reference of each method ("Authorization requires the following IAM
permission"); paths are below https://compute.googleapis.com/compute/v1.
"""

from __future__ import annotations

from constellation.providers.calls import Call

__all__ = [
    "CREATE_INSTANCES",
    "DELETE_INSTANCES",
    "GET_OPERATION",
    "LIST_GROUPS",
    "LIST_INSTANCES",
    "METADATA_CALLS",
    "NODE_GROUP_CALLS",
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
