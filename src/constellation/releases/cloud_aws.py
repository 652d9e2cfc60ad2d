"""AWS' own components: which modules, which images. Pure: a table."""

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

__all__ = ["AWS"]

_CONTROLLER: Final = "aws-cloud-controller-manager"
_CONTROLLER_VERSION: Final = "v1.36.2"
_DRIVER: Final = "aws-ebs-csi-driver"
_DRIVER_MODULE: Final = f"github.com/kubernetes-sigs/{_DRIVER}"
_DRIVER_VERSION: Final = "v1.63.0"

AWS: Final = CloudRecipe(
    provider="aws",
    modules=(
        Recipe(
            folder="cloud-aws",
            programs={_CONTROLLER: f"k8s.io/cloud-provider-aws/cmd/{_CONTROLLER}"},
            variables=version_variables(_CONTROLLER_VERSION),
        ),
        Recipe(
            folder="cloud-aws-csi",
            programs={_DRIVER: f"{_DRIVER_MODULE}/cmd"},
            variables=tuple(
                f"{_DRIVER_MODULE}/pkg/{package}.driverVersion={_DRIVER_VERSION}"
                for package in ("driver", "cloud")
            ),
        ),
        *SIDECAR_MODULES,
    ),
    images=(
        without_tools(_CONTROLLER, _CONTROLLER_VERSION),
        with_tools(_DRIVER, _DRIVER_VERSION),
        *SIDECAR_IMAGES,
    ),
)
