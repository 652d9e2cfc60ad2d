"""What a provider's own code wants to know, out of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.providers.aws.cloud import AwsSettings
from constellation.providers.azure.cloud import AzureSettings
from constellation.providers.gcp.cloud import GcpSettings
from constellation.providers.openstack.cloud import OpenStackSettings
from constellation.providers.terraform.variables import Shared

if TYPE_CHECKING:
    from constellation.attestation.model import Variant
    from constellation.config.providers.aws import AwsProvider
    from constellation.config.providers.azure import AzureProvider
    from constellation.config.providers.cloud import Access
    from constellation.config.providers.gcp import GcpProvider
    from constellation.config.providers.openstack import OpenStackProvider

__all__ = [
    "aws_settings",
    "azure_settings",
    "gcp_settings",
    "networks",
    "openstack_settings",
]


def networks(access: Access) -> dict[str, tuple[str, ...]]:
    """Give the networks that may reach each port, by the module's names."""
    return {
        "api": access.api,
        "init": access.init,
        "recovery": access.recovery,
        "verify": access.verify,
        "policy": access.policy,
        "node_ports": access.node_ports,
    }


def aws_settings(aws: AwsProvider, *, variant: Variant) -> AwsSettings:
    """Give AWS' settings."""
    return AwsSettings(
        region=aws.region,
        zones=aws.zones,
        variant=variant,
        node_network=aws.node_network,
        instance_profile_control_planes=aws.instance_profile_control_planes,
        instance_profile_workers=aws.instance_profile_workers,
        vpc=aws.vpc,
        subnets=aws.subnets,
        public_subnets=aws.public_subnets,
        access=networks(aws.access),
        internal=aws.access.internal,
        custom_endpoint=aws.access.custom_endpoint,
        extra_names=aws.access.extra_names,
        tags=aws.tags,
    )


def azure_settings(azure: AzureProvider, *, variant: Variant) -> AzureSettings:
    """Give Azure's settings."""
    return AzureSettings(
        shared=_shared(azure, region=azure.location, variant=variant),
        subscription=azure.subscription,
        tenant=azure.tenant,
        resource_group=azure.resource_group,
        identity_control_planes=azure.identity_control_planes,
        identity_workers=azure.identity_workers,
        subnet=azure.subnet,
        secure_boot=azure.secure_boot,
        cloud_integration=azure.cloud_integration,
    )


def gcp_settings(gcp: GcpProvider, *, variant: Variant) -> GcpSettings:
    """Give Google Cloud's settings."""
    return GcpSettings(
        shared=_shared(gcp, region=gcp.region, variant=variant),
        project=gcp.project,
        service_account_control_planes=gcp.service_account_control_planes,
        service_account_workers=gcp.service_account_workers,
        network=gcp.network,
        subnetwork=gcp.subnetwork,
    )


def openstack_settings(openstack: OpenStackProvider, *, variant: Variant) -> OpenStackSettings:
    """Give OpenStack's settings."""
    return OpenStackSettings(
        shared=_shared(openstack, region=openstack.region, variant=variant),
        cloud=openstack.cloud,
        external_network=openstack.floating_ip_pool,
        network=openstack.network,
        subnet=openstack.subnet,
        cloud_integration=openstack.cloud_integration,
    )


def _shared(
    block: AzureProvider | GcpProvider | OpenStackProvider, *, region: str, variant: Variant
) -> Shared:
    return Shared(
        region=region,
        variant=variant,
        node_network=block.node_network,
        access=networks(block.access),
        internal=block.access.internal,
        custom_endpoint=block.access.custom_endpoint,
        extra_names=block.access.extra_names,
        tags=block.tags,
    )
