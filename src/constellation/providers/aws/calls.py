"""Which calls of AWS' API this system makes: a client can make no other.

Each row names the permission that the call needs, who makes it and why. The policies of
`infra/iam/aws` allow exactly what the rows of control planes and workers need, and a test compares
them. Source: AWS, "Service Authorization Reference" (actions of EC2, EC2 Auto Scaling, Elastic Load
Balancing V2, Service Quotas) and these services' API references (the versions).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import Final

__all__ = ["ALL", "Caller", "QueryCall", "Service"]


class Caller(Flag):
    """Who makes a call."""

    CONTROL_PLANE = auto()
    WORKER = auto()
    WORKSTATION = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service: its name in signatures and host names, its version.

    `target`: it speaks JSON, and this begins the header that names an action; empty: the Query
    protocol.
    """

    name: str
    version: str
    target: str = ""


EC2: Final = Service(name="ec2", version="2016-11-15")
AUTO_SCALING: Final = Service(name="autoscaling", version="2011-01-01")
BALANCING: Final = Service(name="elasticloadbalancing", version="2015-12-01")
IDENTITY: Final = Service(name="sts", version="2011-06-15")
QUOTAS: Final = Service(name="servicequotas", version="2019-06-24", target="ServiceQuotasV20190624")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCall:
    """One call: service, action, who makes it, why.

    `repeatable`: sent twice it does what it does once. `scoped`: its permission can be held to this
    cluster's own resources (by tag); else it only reads. `tried`: it is sent as a dry run, which
    says whether it would be allowed and does nothing; Terraform makes it in earnest.
    """

    service: Service
    action: str
    by: Caller
    why: str
    repeatable: bool = True
    scoped: bool = False
    tried: bool = False

    @property
    def permission(self) -> str:
        """Give the action as policies name it; the empty text: every identity may do it."""
        return "" if self.service is IDENTITY else f"{self.service.name}:{self.action}"


_EVERY_NODE = Caller.CONTROL_PLANE | Caller.WORKER

DESCRIBE_INSTANCES: Final = QueryCall(
    service=EC2,
    action="DescribeInstances",
    by=_EVERY_NODE | Caller.WORKSTATION,
    why="find the machines of this cluster: a joining node its control planes, the operator all",
)
DESCRIBE_GROUPS: Final = QueryCall(
    service=AUTO_SCALING,
    action="DescribeAutoScalingGroups",
    by=Caller.CONTROL_PLANE,
    why="the size and target groups of a node group before one machine is added or removed",
)
SET_DESIRED_CAPACITY: Final = QueryCall(
    service=AUTO_SCALING,
    action="SetDesiredCapacity",
    by=Caller.CONTROL_PLANE,
    why="add one machine to a node group",
    scoped=True,
)
TERMINATE: Final = QueryCall(
    service=AUTO_SCALING,
    action="TerminateInstanceInAutoScalingGroup",
    by=Caller.CONTROL_PLANE,
    why="remove one machine, and its place in the group with it",
    repeatable=False,
    scoped=True,
)
DEREGISTER: Final = QueryCall(
    service=BALANCING,
    action="DeregisterTargets",
    by=Caller.CONTROL_PLANE,
    why="take a control plane out of the load balancer before it is removed",
    scoped=True,
)
TARGET_HEALTH: Final = QueryCall(
    service=BALANCING,
    action="DescribeTargetHealth",
    by=Caller.CONTROL_PLANE,
    why="wait until the load balancer sends nothing to it any more",
)
REGISTER: Final = QueryCall(
    service=BALANCING,
    action="RegisterTargets",
    by=Caller.WORKSTATION,
    why="lead init (9000) to the one control plane that is to get the secret, and to no other",
)
CONSOLE: Final = QueryCall(
    service=EC2,
    action="GetConsoleOutput",
    by=Caller.WORKSTATION,
    why="show a machine's console after a failure",
)
WHO_AM_I: Final = QueryCall(
    service=IDENTITY,
    action="GetCallerIdentity",
    by=Caller.WORKSTATION,
    why="say before anything is made that the credentials are accepted",
)
DESCRIBE_IMAGES: Final = QueryCall(
    service=EC2,
    action="DescribeImages",
    by=Caller.WORKSTATION,
    why="say before anything is made that the node image is in the region and boots as it must",
)
DESCRIBE_OFFERINGS: Final = QueryCall(
    service=EC2,
    action="DescribeInstanceTypeOfferings",
    by=Caller.WORKSTATION,
    why="say before anything is made that the zones have the machine types",
)
DESCRIBE_VOLUMES: Final = QueryCall(
    service=EC2,
    action="DescribeVolumes",
    by=Caller.WORKSTATION,
    why="name what is left after a cluster was removed",
)

DESCRIBE_EVERYBODYS: Final = QueryCall(
    service=EC2,
    action="DescribeInstances",
    by=Caller.WORKSTATION,
    why="how many virtual CPUs the account uses, before anything is made",
)
DESCRIBE_VPCS: Final = QueryCall(
    service=EC2,
    action="DescribeVpcs",
    by=Caller.WORKSTATION,
    why="how many networks the account has, before one more is made",
)
DESCRIBE_ADDRESSES: Final = QueryCall(
    service=EC2,
    action="DescribeAddresses",
    by=Caller.WORKSTATION,
    why="how many elastic addresses the account has, before one for each zone is made",
)
GET_QUOTA: Final = QueryCall(
    service=QUOTAS,
    action="GetServiceQuota",
    by=Caller.WORKSTATION,
    why="whether the quotas have room, before anything is made",
)


def _tried(action: str, what: str) -> QueryCall:
    return QueryCall(
        service=EC2,
        action=action,
        by=Caller.WORKSTATION,
        why=f"say before anything is made that Terraform may make {what} (a dry run)",
        tried=True,
    )


CREATE_VPC: Final = _tried("CreateVpc", "a network")
CREATE_GATEWAY: Final = _tried("CreateInternetGateway", "its way out")
ALLOCATE_ADDRESS: Final = _tried("AllocateAddress", "elastic addresses")
CREATE_TEMPLATE: Final = _tried("CreateLaunchTemplate", "launch templates")
RUN_INSTANCES: Final = _tried("RunInstances", "machines")

ALL: Final = (
    DESCRIBE_INSTANCES,
    DESCRIBE_GROUPS,
    SET_DESIRED_CAPACITY,
    TERMINATE,
    DEREGISTER,
    TARGET_HEALTH,
    REGISTER,
    CONSOLE,
    WHO_AM_I,
    DESCRIBE_IMAGES,
    DESCRIBE_OFFERINGS,
    DESCRIBE_VOLUMES,
    DESCRIBE_EVERYBODYS,
    DESCRIBE_VPCS,
    DESCRIBE_ADDRESSES,
    GET_QUOTA,
    CREATE_VPC,
    CREATE_GATEWAY,
    ALLOCATE_ADDRESS,
    CREATE_TEMPLATE,
    RUN_INSTANCES,
)
