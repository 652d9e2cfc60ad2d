"""Of which clouds are components built here? One table; each cloud's entry is in its own module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from constellation.releases.cloud_aws import AWS
from constellation.releases.cloud_azure import AZURE
from constellation.releases.cloud_gcp import GCP
from constellation.releases.cloud_openstack import OPENSTACK

if TYPE_CHECKING:
    from constellation.releases.cloud_recipe import CloudRecipe

__all__ = ["CLOUDS"]

CLOUDS: Final[dict[str, CloudRecipe]] = {
    recipe.provider: recipe for recipe in (AWS, AZURE, GCP, OPENSTACK)
}
"""What is built of clouds' components, by provider."""
