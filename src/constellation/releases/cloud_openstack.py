"""OpenStack's own components: which modules, which images. Pure: a table.

`cloud-follow` is ours: it starts them anew when the owner gives another credential, since they read
theirs once (ADR 123).
"""

from __future__ import annotations

import dataclasses
from typing import Final

from constellation.releases.cloud_recipe import CloudRecipe, version_variables, without_tools
from constellation.releases.recipes import ImageRecipe, Recipe

__all__ = ["OPENSTACK"]

_CONTROLLER: Final = "openstack-cloud-controller-manager"
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
            programs={_CONTROLLER: f"{_MODULE}/cmd/{_CONTROLLER}"},
            variables=(*version_variables(_VERSION), f"{_MODULE}/pkg/version.Version={_VERSION}"),
        ),
        Recipe(
            folder="cloud-follow",
            programs={_FOLLOW: "constellation.internal/artifacts/cloud-follow"},
        ),
    ),
    images=(_followed(without_tools(_CONTROLLER, _VERSION), f"usr/local/bin/{_FOLLOW}"),),
)
