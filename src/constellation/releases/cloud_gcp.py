"""Google's own components: which modules, which images. Pure: a table.

Its disk driver runs two programs of its image by fixed paths before it uses a disk: scsi_id, which
is udev's and lies in the node's /usr, and one for NVMe disks, which is a small program of ours.
Source: sigs.k8s.io/gcp-compute-persistent-disk-csi-driver v1.28.1, pkg/deviceutils.
"""

from __future__ import annotations

from typing import Final

from constellation.releases.cloud_recipe import CloudRecipe, reference
from constellation.releases.cloud_sidecars import SIDECAR_IMAGES, SIDECAR_MODULES
from constellation.releases.recipes import ImageRecipe, Recipe

__all__ = ["GCP"]

_DRIVER: Final = "gce-pd-csi-driver"
_DRIVER_VERSION: Final = "v1.28.1"
_NVME_ID: Final = "google-nvme-id"
_CALLED: Final = "lib/udev_containerized"

GCP: Final = CloudRecipe(
    provider="gcp",
    modules=(
        Recipe(
            folder="csi-gcp",
            programs={
                _DRIVER: f"sigs.k8s.io/gcp-compute-persistent-disk-csi-driver/cmd/{_DRIVER}",
            },
            variables=(f"main.version={_DRIVER_VERSION}",),
        ),
        Recipe(
            folder=_NVME_ID,
            programs={_NVME_ID: f"constellation.internal/artifacts/{_NVME_ID}"},
        ),
        *SIDECAR_MODULES,
    ),
    images=(
        # as cloud_recipe.with_tools; /lib is a folder here, with the one link that the loader needs
        ImageRecipe(
            reference=reference(_DRIVER, _DRIVER_VERSION),
            files={f"programs/{_DRIVER}": _DRIVER, f"{_CALLED}/google_nvme_id": _NVME_ID},
            entrypoint=(f"/programs/{_DRIVER}",),
            links={
                **{folder: f"usr/{folder}" for folder in ("bin", "lib64", "sbin")},
                f"{_CALLED}/scsi_id": "/usr/lib/udev/scsi_id",
                "lib/x86_64-linux-gnu": "/usr/lib/x86_64-linux-gnu",
            },
        ),
        *SIDECAR_IMAGES,
    ),
)
