"""Which calls of AWS' API does its own cloud controller manager make, and what holds them?

Not our program: this table is what `infra/iam/aws` allows it beside the calls of `calls.ALL`, where
the conf wants the cloud's components. `seen`: the drill saw it made (`make drill-cloud-aws`, calls
kept in bench/results/drill-cloud-aws.json, which a test compares); else the program's source has
it, on a way that the drill does not go. What only an annotation of a Service asks for, as
certificates, proxy protocol, attributes of target groups, or tags of one's own, is not allowed.
Sources: k8s.io/cloud-provider-aws v1.36.2, pkg/providers/v1; AWS, "Service Authorization
Reference" (EC2, Elastic Load Balancing, Elastic Load Balancing V2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["CLUSTER_TAG", "CONTROLLER", "ControllerCall", "Held"]

CLUSTER_TAG: Final = "KubernetesCluster"
"""The tag with the cluster's uid that it looks for, and puts on what it makes."""


class Held(StrEnum):
    """What a permission is held to, beside the region."""

    READS = "region"
    MAKES = "made with this cluster's tag"
    TAGS = "while it is made"
    CHANGES = "clusters of this name"
    REMOVES = "clusters of this name; made by it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerCall:
    """One call: its permission, what that is held to, why it is made, whether it was seen."""

    permission: str
    held: Held
    why: str
    seen: bool = True


def _ec2(action: str, held: Held, why: str, *, seen: bool = True) -> ControllerCall:
    return ControllerCall(permission=f"ec2:{action}", held=held, why=why, seen=seen)


def _elb(action: str, held: Held, why: str, *, seen: bool = True) -> ControllerCall:
    permission = f"elasticloadbalancing:{action}"
    return ControllerCall(permission=permission, held=held, why=why, seen=seen)


CONTROLLER: Final = (
    _ec2("DescribeInstances", Held.READS, "does a node's machine still exist; who it is itself"),
    _ec2("DescribeSubnets", Held.READS, "where a load balancer may stand"),
    _ec2("DescribeRouteTables", Held.READS, "which of these subnets are public"),
    _ec2("DescribeAvailabilityZones", Held.READS, "which of these zones are whole ones"),
    _ec2("DescribeSecurityGroups", Held.READS, "what lets a load balancer in, before a change"),
    _elb("DescribeLoadBalancers", Held.READS, "is a Service's load balancer there"),
    _elb("DescribeLoadBalancerAttributes", Held.READS, "its settings, before a change"),
    _elb("DescribeListeners", Held.READS, "its ports, before a change"),
    _elb("DescribeTargetGroups", Held.READS, "its target groups, before a change"),
    _elb("DescribeTargetHealth", Held.READS, "their machines, before a change"),
    _ec2("CreateSecurityGroup", Held.MAKES, "one for each classic load balancer"),
    _elb("CreateLoadBalancer", Held.MAKES, "one for each Service of type LoadBalancer"),
    _elb("CreateTargetGroup", Held.MAKES, "one for each port of a network load balancer"),
    _ec2("CreateTags", Held.TAGS, "asked for where the call above carries the cluster's tag"),
    _elb("AddTags", Held.TAGS, "the same for load balancers, listeners, target groups"),
    _ec2("AuthorizeSecurityGroupIngress", Held.CHANGES, "let it reach nodes, and users reach it"),
    _ec2("RevokeSecurityGroupIngress", Held.CHANGES, "close that again"),
    _elb("RegisterInstancesWithLoadBalancer", Held.CHANGES, "a new node (classic)"),
    _elb("DeregisterInstancesFromLoadBalancer", Held.CHANGES, "a node that goes (classic)"),
    _elb("ConfigureHealthCheck", Held.CHANGES, "which nodes take connections (classic)"),
    _elb("CreateLoadBalancerListeners", Held.CHANGES, "a new port of a Service (classic)"),
    _elb("DeleteLoadBalancerListeners", Held.CHANGES, "a port that goes (classic)"),
    _elb("ModifyLoadBalancerAttributes", Held.CHANGES, "settings, where they differ"),
    _elb("AttachLoadBalancerToSubnets", Held.CHANGES, "a zone was added (classic)", seen=False),
    _elb("DetachLoadBalancerFromSubnets", Held.CHANGES, "a zone was left (classic)", seen=False),
    _elb("ApplySecurityGroupsToLoadBalancer", Held.CHANGES, "they differ (classic)", seen=False),
    _elb("CreateListener", Held.CHANGES, "a new port of a Service (network)"),
    _elb("ModifyListener", Held.CHANGES, "another target group for a port (network)"),
    _elb("DeleteListener", Held.CHANGES, "a port that goes (network)"),
    _elb("ModifyTargetGroup", Held.CHANGES, "another health check (network)", seen=False),
    _elb("RegisterTargets", Held.CHANGES, "a new node (network)"),
    _elb("DeregisterTargets", Held.CHANGES, "a node that goes (network)", seen=False),
    _elb("DeleteLoadBalancer", Held.REMOVES, "its Service is gone"),
    _elb("DeleteTargetGroup", Held.REMOVES, "its port or Service is gone"),
    _ec2("DeleteSecurityGroup", Held.REMOVES, "its load balancer is gone"),
)
