"""What a provider's own code wants to know, out of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.providers.aws.cloud import AwsSettings

if TYPE_CHECKING:
    from constellation.attestation.model import Variant
    from constellation.config.providers.aws import AwsProvider
    from constellation.config.providers.cloud import Access

__all__ = ["aws_settings", "networks"]


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
