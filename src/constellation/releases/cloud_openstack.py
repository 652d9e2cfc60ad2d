"""OpenStack's own components: which modules, which images. Pure: a table.

Controller manager and Cinder's CSI driver are two programs of one module. `cloud-follow` is ours:
it starts them anew when the owner gives another credential, since they read theirs once (ADR 123).
"""

from __future__ import annotations

import dataclasses
from typing import Final

from constellation.releases.cloud_recipe import (
    CloudRecipe,
    version_variables,
    with_tools,
    without_tools,
)
from constellation.releases.cloud_sidecars import SIDECAR_IMAGES, SIDECAR_MODULES
from constellation.releases.recipes import ImageRecipe, Recipe

__all__ = ["OPENSTACK"]

_CONTROLLER: Final = "openstack-cloud-controller-manager"
_DRIVER: Final = "cinder-csi-plugin"
_FOLLOW: Final = "cloud-follow"
_VERSION: Final = "v1.36.0"
_MODULE: Final = "k8s.io/cloud-provider-openstack"


def _followed(image: ImageRecipe, path: str) -> ImageRecipe:
    return dataclasses.replace(image, files={**image.files, path: _FOLLOW})


OPENSTACK: Final = CloudRecipe(
    provider="openstack",
    modules=(
        Recipe(
            folder="cloud-openstack",
            programs={name: f"{_MODULE}/cmd/{name}" for name in (_CONTROLLER, _DRIVER)},
            variables=(*version_variables(_VERSION), f"{_MODULE}/pkg/version.Version={_VERSION}"),
        ),
        Recipe(
            folder="cloud-follow",
            programs={_FOLLOW: "constellation.internal/artifacts/cloud-follow"},
        ),
        *SIDECAR_MODULES,
    ),
    images=(
        _followed(without_tools(_CONTROLLER, _VERSION), f"usr/local/bin/{_FOLLOW}"),
        _followed(with_tools(_DRIVER, _VERSION), f"programs/{_FOLLOW}"),
        *SIDECAR_IMAGES,
    ),
)
