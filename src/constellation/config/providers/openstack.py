"""The block `provider.openstack`; STACKIT is a preset of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from constellation.config.providers.cloud import Access, Tags, Terraform
from constellation.config.section import Section

__all__ = ["OpenStackProvider"]


class OpenStackProvider(Section):
    """An OpenStack cloud. Credentials stand in clouds.yaml of the workstation, never here."""

    cloud: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    """Name of the cloud in clouds.yaml."""

    clouds_yaml: Annotated[str, Field(alias="cloudsYAML")] = ""
    """Path of clouds.yaml. Empty: where OpenStack's tools look for it. The cloud's entry has an
    application credential (auth_type v3applicationcredential), no password."""

    control_planes_cloud: Annotated[str, Field(pattern=r"^[\w.-]{0,64}$")] = ""
    """Name of the entry in clouds.yaml with the control planes' own application credential, made
    with the access rules of infra/iam/openstack. `init` gives it to them by attested TLS; no user
    data and no state has it. Needed where `constellation` makes the machines."""

    components_cloud: Annotated[str, Field(pattern=r"^[\w.-]{0,64}$")] = ""
    """Name of the entry in clouds.yaml with the application credential of the cloud's own
    components, made with infra/iam/openstack/component-rules.json. It goes the way of the control
    planes' one. Needed with cloudIntegration, where `constellation` makes the machines."""

    trust_roots: str = ""
    """File (PEM, from here) with the authorities that certify attestation keys of the machines'
    vTPMs: the cloud's operator has it. Empty: no machine is accepted."""

    region: Annotated[str, Field(pattern=r"^[\w-]{0,64}$")] = ""
    """Region. Empty: the one of clouds.yaml."""

    zones: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[\w-]{1,64}$")], ...], Field(strict=False)
    ] = ()
    """Availability zones for the nodes. Empty: the cloud's default."""

    image: str = ""
    """The node image (its id). Empty: the one that the release names."""

    floating_ip_pool: Annotated[str, Field(alias="floatingIPPool")] = ""
    """Id of the external network for floating addresses; not needed if access.internal."""

    stackit_project: Annotated[
        str, Field(alias="stackitProjectID", pattern=r"^[0-9a-f-]{0,36}$")
    ] = ""
    """STACKIT only: the project's id. Empty: another OpenStack cloud."""

    node_network: Annotated[str, Field(pattern=r"^[0-9./]*$")] = "10.42.0.0/16"
    """Addresses of the nodes (IPv4)."""

    network: str = ""
    """Id of an existing network for the nodes. Empty: network, subnet and router are made."""

    subnet: str = ""
    """Id of that network's subnet."""

    cloud_integration: bool = False
    """True: the cloud's own components (controller manager, CSI driver) run in the cluster, as the
    release names them by digest. They act with the credential of componentsCloud."""

    access: Access = Access()
    """Who may reach what from outside."""

    tags: Tags = Field(default_factory=dict)
    """Tags for all resources, beside ours."""

    terraform: Terraform = Terraform()
    """How Terraform or OpenTofu is run."""
