"""The block `provider.aws`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from constellation.config.providers.cloud import Access, Tags, Terraform
from constellation.config.section import Section

__all__ = ["AwsProvider"]


class AwsProvider(Section):
    """Amazon Web Services. Credentials are the environment's, as for `aws`; none stand here."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]{2,12}){1,3}-\d$")]
    """Region, e.g. eu-west-1."""

    zones: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]{2,12}){1,3}-\d[a-z]$")], ...],
        Field(strict=False, min_length=1, max_length=6),
    ]
    """Availability zones for the nodes, e.g. [eu-west-1a]; a group is spread over them, unless it
    names its own."""

    image: Annotated[str, Field(pattern=r"^(ami-[0-9a-f]{8,17})?$")] = ""
    """The node image (AMI) in this region. Its measurements are those of the release. Empty: the
    one that the release names for this region."""

    instance_profile_control_planes: Annotated[str, Field(pattern=r"^[\w+=,.@-]{0,128}$")] = ""
    """IAM instance profile of the control planes. `constellation iam create` makes it."""

    instance_profile_workers: Annotated[str, Field(pattern=r"^[\w+=,.@-]{0,128}$")] = ""
    """IAM instance profile of the workers. `constellation iam create` makes it."""

    node_network: Annotated[str, Field(pattern=r"^[0-9./]*$")] = "10.42.0.0/16"
    """Addresses of the nodes (IPv4). In an existing VPC: a free part of it."""

    vpc: Annotated[str, Field(alias="vpcID", pattern=r"^(vpc-[0-9a-f]{8,17})?$")] = ""
    """An existing VPC. Empty: one is made."""

    subnets: Annotated[
        dict[str, Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]],
        Field(alias="subnetIDs"),
    ] = Field(default_factory=dict)
    """Subnets of the existing VPC for the nodes, by zone. They must have a way to the internet."""

    public_subnets: Annotated[
        dict[str, Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]],
        Field(alias="publicSubnetIDs"),
    ] = Field(default_factory=dict)
    """Subnets of the existing VPC for the load balancer, by zone; not needed if it is internal."""

    cloud_integration: bool = False
    """True: the cloud's own components (controller manager, CSI driver) run in the cluster, as the
    release names them by digest. They act with the control planes' rights in the cloud."""

    access: Access = Access()
    """Who may reach what from outside."""

    tags: Tags = Field(default_factory=dict)
    """Tags for all resources, beside ours."""

    terraform: Terraform = Terraform()
    """How Terraform or OpenTofu is run."""

    @model_validator(mode="after")
    def _agree(self) -> AwsProvider:
        for zone in self.zones:
            if not zone.startswith(self.region) or len(zone) != len(self.region) + 1:
                raise ValueError(f"expected zones of {self.region}, found {zone}")
        if bool(self.vpc) != bool(self.subnets):
            raise ValueError("expected vpcID and subnetIDs together, found one of them")
        if self.vpc:
            public = set(self.zones) if self.access.internal else set(self.public_subnets)
            if missing := set(self.zones) - (set(self.subnets) & public):
                raise ValueError(f"expected a subnet for each zone, found none for {missing}")
        return self
