"""The block `provider.gcp`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from constellation.config.providers.cloud import Access, Tags, Terraform
from constellation.config.section import Section

__all__ = ["GcpProvider"]

_ZONE = r"^[a-z]{2,20}-[a-z]{2,20}\d-[a-z]$"


class GcpProvider(Section):
    """Google Cloud. Credentials are the environment's, as for `gcloud`; none stand here."""

    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
    """Project id."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2,20}-[a-z]{2,20}\d$")]
    """Region, e.g. europe-west3."""

    zones: Annotated[
        tuple[Annotated[str, Field(pattern=_ZONE)], ...],
        Field(strict=False, min_length=1, max_length=6),
    ]
    """Zones for the nodes, e.g. [europe-west3-b]."""

    image: str = ""
    """The node image (projects/…/global/images/…). Empty: the one that the release names."""

    service_account_control_planes: str = ""
    """Service account (e-mail) of control planes. `constellation iam create` makes it."""

    service_account_workers: str = ""
    """Service account (e-mail) of workers. `constellation iam create` makes it."""

    node_network: Annotated[str, Field(pattern=r"^[0-9./]*$")] = "10.42.0.0/16"
    """Addresses of the nodes (IPv4)."""

    network: str = ""
    """Self link of an existing network, with a subnetwork. Empty: both are made."""

    subnetwork: str = ""
    """Self link of an existing subnetwork for the nodes, in that network."""

    cloud_integration: bool = False
    """True: the cloud's own components (controller manager, CSI driver) run in the cluster, as the
    release names them by digest. They act with the control planes' rights in the cloud."""

    access: Access = Access()
    """Who may reach what from outside."""

    tags: Tags = Field(default_factory=dict)
    """Labels for all resources, beside ours."""

    terraform: Terraform = Terraform()
    """How Terraform or OpenTofu is run."""

    @model_validator(mode="after")
    def _agree(self) -> GcpProvider:
        for zone in self.zones:
            if zone.rpartition("-")[0] != self.region:
                raise ValueError(f"expected zones of {self.region}, found {zone}")
        if bool(self.network) != bool(self.subnetwork):
            raise ValueError("expected network and subnetwork both, or neither")
        return self
