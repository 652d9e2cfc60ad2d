"""Which calls does Google's own disk driver make, each with the permission that it needs?

Not our program: what `infra/iam/gcp` allows it beside the calls of `calls`, where the conf wants
it. Seen in the kept run (`make drill-cloud-gcp`). What only a StorageClass of the user's own or
another API asks for (disks of a region, snapshots, images, storage pools, tags) is not allowed.
Sources: sigs.k8s.io/gcp-compute-persistent-disk-csi-driver v1.28.1, pkg/gce-cloud-provider and
deploy/; Compute Engine API v1, reference of each method. Paths as in `calls`.
"""

from __future__ import annotations

from typing import Final

from constellation.providers.calls import Call

__all__ = ["DRIVER", "OF_WORKERS"]

_ZONE: Final = "/projects/{project}/zones/{zone}"
_DISK: Final = f"{_ZONE}/disks/{{disk}}"
_VM: Final = f"{_ZONE}/instances/{{instance}}"


def _call(method: str, path: str, permission: str, why: str, *linked: str) -> Call:
    return Call(
        method=method,
        path=path,
        permission=f"compute.{permission}",
        why=why,
        repeatable=True,
        linked=linked,
    )


DRIVER: Final = (
    _call("GET", _DISK, "disks.get", "is a volume's disk there"),
    _call("POST", f"{_ZONE}/disks", "disks.create", "make a volume's disk"),
    _call("DELETE", _DISK, "disks.delete", "its volume is gone"),
    _call("POST", f"{_DISK}/resize", "disks.resize", "a volume is to be larger"),
    _call("GET", _VM, "instances.get", "which disks a node has"),
    _call(
        "POST", f"{_VM}/attachDisk", "instances.attachDisk", "attach a volume's disk to a node",
        "compute.disks.use",
    ),
    _call("POST", f"{_VM}/detachDisk", "instances.detachDisk", "detach it"),
    _call(
        "POST", f"{_ZONE}/operations/{{operation}}/wait", "zoneOperations.get",
        "was a change accepted",
    ),
)  # fmt: skip

OF_WORKERS: Final = (
    Call(
        method="POST",
        path=f"{_VM}/attachDisk",
        permission="iam.serviceAccounts.actAs",
        why="the machine that a disk is attached to runs as this account",
        repeatable=True,
    ),
)
"""Of the workers' service account alone."""
