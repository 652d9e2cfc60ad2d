"""Write what a configuration gives each module as variables: golden files of tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from constellation.base.secret import Secret
from constellation.config.cloud_settings import azure_settings, gcp_settings, openstack_settings
from constellation.providers.azure.cloud import AzureCloud
from constellation.providers.gcp.cloud import GcpCloud
from constellation.providers.openstack.cloud import Login, OpenStackCloud
from tests.fakes.cloud_confs import UID, conf, desired

if TYPE_CHECKING:
    from constellation.config.schema import Config
    from constellation.providers.terraform.infrastructure import Cloud

__all__ = ["dump_variables"]


def dump_variables(provider: str) -> str:
    """Write the variables of a small cluster that runs, as JSON."""
    config = conf(provider, control_planes=3, workers=2)
    found = _cloud(config).variables(UID, desired(config, initialised=True))
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _cloud(config: Config) -> Cloud:
    provider, variant = config.provider, config.attestation.variant
    if provider.azure is not None:
        return AzureCloud(azure_settings(provider.azure, variant=variant))
    if provider.gcp is not None:
        return GcpCloud(settings=gcp_settings(provider.gcp, variant=variant))
    if provider.openstack is None:
        raise ValueError(f"no variables for {provider.name}")
    login = Login(
        auth_url="https://keystone.example/v3",
        region="RegionOne",
        credential_id="cred",
        credential_secret=Secret(b"sesame"),
        certificates="",
    )
    return OpenStackCloud(openstack_settings(provider.openstack, variant=variant), login)
