"""Which providers there are: for each, its catalogue of variants and machines."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from constellation.providers.aws.catalogue import AWS
from constellation.providers.azure.catalogue import AZURE
from constellation.providers.baremetal.catalogue import BAREMETAL
from constellation.providers.gcp.catalogue import GCP
from constellation.providers.local.catalogue import LOCAL
from constellation.providers.openstack.catalogue import OPENSTACK

if TYPE_CHECKING:
    from constellation.providers.catalogue import Catalogue

__all__ = ["ProviderName", "catalogue"]


class ProviderName(StrEnum):
    """Where machines come from."""

    LOCAL = "local"
    AWS = "aws"
    AZURE = "azure"
    GCP = "gcp"
    OPENSTACK = "openstack"
    BAREMETAL = "baremetal"


_ALL = {c.provider: c for c in (LOCAL, AWS, AZURE, GCP, OPENSTACK, BAREMETAL)}


def catalogue(name: ProviderName) -> Catalogue:
    """Give a provider's variants and machines."""
    return _ALL[name]
