"""Which calls of AWS' API does its own CSI driver make, and what holds them?

Not our program: this table is what `infra/iam/aws` allows it beside the calls of `calls.ALL`, where
the conf wants the cloud's components. `seen`: the drill saw it made (`make drill-cloud-aws`, calls
kept in bench/results/drill-cloud-aws.json, which a test compares). Snapshots, clones, fast restore,
changed tags and keys of one's own are not allowed. The driver marks what it makes with a tag that
is the same in every cluster: which cluster's it is, AWS is not told (docs/security/limitations.md).
Sources: github.com/kubernetes-sigs/aws-ebs-csi-driver v1.63.0, pkg/cloud; AWS, "Service
Authorization Reference" (EC2: actions, resource types, ec2:Encrypted, ec2:CreateAction).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["DRIVER_TAG", "STORAGE", "StorageCall", "StorageHeld"]

DRIVER_TAG: Final = "ebs.csi.aws.com/cluster"
"""The tag that the driver puts on its volumes; its value is always "true"."""


class StorageHeld(StrEnum):
    """What a permission is held to, beside the region."""

    READS = "region"
    MAKES = "volumes made with the driver's tag, encrypted"
    TAGS = "while it is made"
    JOINS = "volumes with the driver's tag; machines of clusters of this name"
    CHANGES = "volumes with the driver's tag; not made by Terraform"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCall:
    """One call: its permission, what that is held to, why it is made, whether it was seen."""

    permission: str
    held: StorageHeld
    why: str
    seen: bool = True


def _ec2(action: str, held: StorageHeld, why: str, *, seen: bool = True) -> StorageCall:
    return StorageCall(permission=f"ec2:{action}", held=held, why=why, seen=seen)


STORAGE: Final = (
    _ec2("DescribeAvailabilityZones", StorageHeld.READS, "does AWS answer at all (its probe)"),
    _ec2("DescribeInstances", StorageHeld.READS, "which device names a machine has free"),
    _ec2("DescribeInstanceTypes", StorageHeld.READS, "how many volumes a machine takes"),
    _ec2("DescribeVolumes", StorageHeld.READS, "is a volume made, attached, detached, as large"),
    _ec2("DescribeVolumesModifications", StorageHeld.READS, "is a volume's growth done"),
    _ec2("CreateVolume", StorageHeld.MAKES, "one for each claim"),
    _ec2("CreateTags", StorageHeld.TAGS, "asked for where the call above carries tags"),
    _ec2("AttachVolume", StorageHeld.JOINS, "a pod with the claim is placed on a node"),
    _ec2("DetachVolume", StorageHeld.JOINS, "the last pod with the claim has left a node"),
    _ec2("ModifyVolume", StorageHeld.CHANGES, "a claim asks for more"),
    _ec2("DeleteVolume", StorageHeld.CHANGES, "its claim is gone"),
)
"""What AWS' own CSI driver may do."""
