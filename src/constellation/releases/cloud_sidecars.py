"""What stands beside every cloud's CSI driver: the same modules and images for all. Pure: a table.

Three are the Kubernetes project's, of its 0.36 line; the fourth, which tells kubelet about a node's
driver, is a small program of ours, since no module of the project's could be had.
"""

from __future__ import annotations

from typing import Final

from constellation.releases.cloud_recipe import without_tools
from constellation.releases.recipes import Recipe

__all__ = ["SIDECAR_IMAGES", "SIDECAR_MODULES"]

_REGISTRAR: Final = "csi-registrar"
_REGISTRAR_VERSION: Final = "v1.0.0"
# name, module, version
_OF_KUBERNETES: Final = (
    ("csi-provisioner", "github.com/kubernetes-csi/external-provisioner/v6", "v6.3.0"),
    ("csi-attacher", "github.com/kubernetes-csi/external-attacher/v4", "v4.12.0"),
    ("csi-resizer", "github.com/kubernetes-csi/external-resizer/v2", "v2.2.0"),
)

SIDECAR_MODULES: Final = (
    *(
        Recipe(
            folder=name,
            programs={name: f"{module}/cmd/{name}"},
            variables=(f"main.version={version}",),
        )
        for name, module, version in _OF_KUBERNETES
    ),
    Recipe(
        folder=_REGISTRAR,
        programs={_REGISTRAR: f"constellation.internal/artifacts/{_REGISTRAR}"},
    ),
)
"""Give these to a `CloudRecipe` after the cloud's own modules."""

SIDECAR_IMAGES: Final = (
    *(without_tools(name, version) for name, _module, version in _OF_KUBERNETES),
    without_tools(_REGISTRAR, _REGISTRAR_VERSION),
)
"""Their images; a cloud's objects have to use each."""
