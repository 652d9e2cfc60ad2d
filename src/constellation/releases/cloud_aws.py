"""AWS' own components: which modules, which images. Pure: a table."""

from __future__ import annotations

from typing import Final

from constellation.releases.cloud_recipe import CloudRecipe, version_variables, without_tools
from constellation.releases.recipes import Recipe

__all__ = ["AWS"]

_CONTROLLER: Final = "aws-cloud-controller-manager"
_CONTROLLER_VERSION: Final = "v1.36.2"

AWS: Final = CloudRecipe(
    provider="aws",
    modules=(
        Recipe(
            folder="cloud-aws",
            programs={_CONTROLLER: f"k8s.io/cloud-provider-aws/cmd/{_CONTROLLER}"},
            variables=version_variables(_CONTROLLER_VERSION),
        ),
    ),
    images=(without_tools(_CONTROLLER, _CONTROLLER_VERSION),),
)
