"""The block `provider.azure`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from constellation.config.providers.cloud import Access, Tags, Terraform
from constellation.config.section import Section

__all__ = ["AzureProvider"]

_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class AzureProvider(Section):
    """Microsoft Azure. Credentials are the environment's, as for `az`; none stand here."""

    subscription: Annotated[str, Field(pattern=_UUID)]
    """Subscription (UUID)."""

    tenant: Annotated[str, Field(pattern=_UUID)]
    """Tenant (UUID)."""

    location: Annotated[str, Field(pattern=r"^[a-z0-9]{3,40}$")]
    """Region, e.g. germanywestcentral."""

    zones: Annotated[tuple[Annotated[str, Field(pattern=r"^[123]$")], ...], Field(strict=False)] = (
        "1",
    )
    """Availability zones for the nodes, e.g. ["1", "2"]. Empty: the region has none."""

    resource_group: Annotated[str, Field(pattern=r"^[\w().-]{1,90}$")]
    """Resource group for everything of this cluster. `constellation iam
    create` makes it."""

    image: str = ""
    """The node image (resource id of an image version). Empty: the one that the release names."""

    identity_control_planes: str = ""
    """Resource id of the control planes' user-assigned identity. `constellation iam
    create` makes it."""

    identity_workers: str = ""
    """Resource id of the workers' user-assigned identity. `constellation iam create`
    makes it."""

    secure_boot: bool = False
    """True: firmware starts only what its own keys have signed. What a node boots is measured
    either way."""

    node_network: Annotated[str, Field(pattern=r"^[0-9./]*$")] = "10.42.0.0/16"
    """Addresses of the nodes (IPv4)."""

    subnet: str = ""
    """Resource id of an existing subnet for the nodes. Empty: network and subnet are made."""

    cloud_integration: bool = False
    """True: the cloud's own components (controller manager, CSI driver) run in the cluster, as the
    release names them by digest. They act with the control planes' rights in the cloud."""

    access: Access = Access()
    """Who may reach what from outside."""

    tags: Tags = Field(default_factory=dict)
    """Tags for all resources, beside ours."""

    terraform: Terraform = Terraform()
    """How Terraform or OpenTofu is run."""
