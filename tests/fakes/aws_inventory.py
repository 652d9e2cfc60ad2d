"""Everything that an AWS account has beyond what comes with it, as the server's own API lists it.

`python -m tests.fakes.aws_inventory REGION` prints JSON: kind to a list. boto3 asks, so that what
is looked at does not come through code of ours.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3


def _gone(instance: dict[str, Any]) -> bool:
    return instance["State"]["Name"] in ("terminated", "shutting-down")


def inventory(region: str) -> dict[str, list[Any]]:
    ec2 = boto3.client("ec2", region_name=region)
    balancing = boto3.client("elbv2", region_name=region)
    scaling = boto3.client("autoscaling", region_name=region)
    iam = boto3.client("iam", region_name=region)
    vpcs = [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]
    balancers = balancing.describe_load_balancers()["LoadBalancers"]
    reservations = ec2.describe_instances()["Reservations"]
    groups = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    return {
        "addresses": [a["AllocationId"] for a in ec2.describe_addresses()["Addresses"]],
        "balancers": sorted([b["LoadBalancerName"], b.get("Scheme", "")] for b in balancers),
        "gateways": [
            g["InternetGatewayId"] for g in ec2.describe_internet_gateways()["InternetGateways"]
        ],
        "groups": sorted(
            [
                g["AutoScalingGroupName"],
                g["DesiredCapacity"],
                len(g["Instances"]),
                len(g["TargetGroupARNs"]),
                sorted(s["ProcessName"] for s in g["SuspendedProcesses"]),
            ]
            for g in groups
        ),
        "instances": sorted(
            [
                i["InstanceId"],
                i["PrivateIpAddress"],
                {t["Key"]: t["Value"] for t in i.get("Tags", [])},
            ]
            for r in reservations
            for i in r["Instances"]
            if not _gone(i)
        ),
        "listeners": sorted(
            [b["LoadBalancerName"], listener["Port"]]
            for b in balancers
            for listener in balancing.describe_listeners(LoadBalancerArn=b["LoadBalancerArn"])[
                "Listeners"
            ]
        ),
        "nat": [
            n["NatGatewayId"]
            for n in ec2.describe_nat_gateways()["NatGateways"]
            if n["State"] != "deleted"
        ],
        "open": sorted(
            [rule["CidrIpv4"], rule["FromPort"], rule["ToPort"]]
            for rule in ec2.describe_security_group_rules()["SecurityGroupRules"]
            if not rule["IsEgress"] and "CidrIpv4" in rule
        ),
        "profiles": [
            p["InstanceProfileName"] for p in iam.list_instance_profiles()["InstanceProfiles"]
        ],
        "roles": [r["RoleName"] for r in iam.list_roles()["Roles"]],
        "security_groups": sorted(
            g["GroupName"]
            for g in ec2.describe_security_groups()["SecurityGroups"]
            if g["GroupName"] != "default"
        ),
        "subnets": [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"] if s["VpcId"] in vpcs],
        "targets": sorted(
            [t["TargetGroupName"], target["Target"]["Id"]]
            for t in balancing.describe_target_groups()["TargetGroups"]
            for target in balancing.describe_target_health(TargetGroupArn=t["TargetGroupArn"])[
                "TargetHealthDescriptions"
            ]
        ),
        "target_groups": sorted(
            [t["TargetGroupName"], t["Port"]]
            for t in balancing.describe_target_groups()["TargetGroups"]
        ),
        "templates": sorted(
            [
                t["LaunchTemplateName"],
                ec2.describe_launch_template_versions(
                    LaunchTemplateId=t["LaunchTemplateId"], Versions=["$Latest"]
                )["LaunchTemplateVersions"][0]["LaunchTemplateData"],
            ]
            for t in ec2.describe_launch_templates()["LaunchTemplates"]
        ),
        "volumes": [v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]],
        "vpcs": vpcs,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(inventory(sys.argv[1]), default=str))
