"""Azure's own components: which modules, which images. Pure: a table."""

from __future__ import annotations

from typing import Final

from constellation.releases.cloud_recipe import (
    CloudRecipe,
    version_variables,
    with_tools,
    without_tools,
)
from constellation.releases.cloud_sidecars import SIDECAR_IMAGES, SIDECAR_MODULES
from constellation.releases.recipes import Recipe

__all__ = ["AZURE"]

_CONTROLLER: Final = "azure-cloud-controller-manager"
_CONTROLLER_VERSION: Final = "v1.36.3"
_DRIVER: Final = "azuredisk-csi-driver"
_DRIVER_VERSION: Final = "v1.34.3"

AZURE: Final = CloudRecipe(
    provider="azure",
    modules=(
        Recipe(
            folder="cloud-azure",
            programs={_CONTROLLER: "sigs.k8s.io/cloud-provider-azure/cmd/cloud-controller-manager"},
            variables=version_variables(_CONTROLLER_VERSION),
        ),
        Recipe(
            folder="csi-azure",
            programs={_DRIVER: f"sigs.k8s.io/{_DRIVER}/pkg/azurediskplugin"},
            variables=(f"sigs.k8s.io/{_DRIVER}/pkg/azuredisk.driverVersion={_DRIVER_VERSION}",),
        ),
        *SIDECAR_MODULES,
    ),
    images=(
        without_tools(_CONTROLLER, _CONTROLLER_VERSION),
        with_tools(_DRIVER, _DRIVER_VERSION),
        *SIDECAR_IMAGES,
    ),
)
