"""The static pods of this node: whole again after a cut, ended for good, which version they are.

kubeadm moves an old manifest away and then the new one in. Cut off in between, the folder lacks
one, and kubeadm itself would refuse to go on: the old one is put back from kubeadm's own backup.
Source: kubeadm 1.36, phases/upgrade/staticpods.go (`/etc/kubernetes/tmp/kubeadm-backup-…`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.base.files import write_atomic
from constellation.services.upgradeagent.judge import image_tag

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.services.upgradeagent.paths import Paths

__all__ = ["API_SERVER", "COMPONENTS", "api_server_version", "etcd_tag", "make_whole", "retire"]

API_SERVER = "kube-apiserver"
COMPONENTS = ("kube-scheduler", "kube-controller-manager", API_SERVER)
"""In the order in which they end: the API server last, the others still need it."""
_BACKUPS = "tmp/kubeadm-backup-manifests*"


def api_server_version(paths: Paths) -> str:
    """Give the version of this node's API server; empty where it has none. Raises FormatError."""
    return _tag(paths.manifests / f"{API_SERVER}.yaml")


def etcd_tag(paths: Paths) -> str:
    """Give the tag of this node's etcd image; empty where it has none. Raises FormatError."""
    return _tag(paths.manifests / "etcd.yaml")


def make_whole(paths: Paths) -> None:
    """Put back each manifest that a cut left out; none is missing: nothing.

    Raises:
        Unavailable: there is no backup of it.
    """
    for component in COMPONENTS:
        manifest = paths.manifests / f"{component}.yaml"
        if manifest.exists():
            continue
        kept = sorted(
            (p / manifest.name for p in paths.kubernetes.glob(_BACKUPS)),
            key=lambda p: p.parent.name,  # its end is the time
        )
        backup = next((p for p in reversed(kept) if p.exists()), None)
        if backup is None:
            raise Unavailable(f"static pod {component} is missing, and kubeadm kept no backup")
        write_atomic(manifest, backup.read_bytes(), mode=0o600)


def retire(paths: Paths, component: str) -> None:
    """Take a static pod away from kubelet, which then ends it with its grace; again: nothing."""
    paths.retired.mkdir(mode=0o700, exist_ok=True)
    name = f"{component}.yaml"
    with contextlib.suppress(FileNotFoundError):
        (paths.manifests / name).rename(paths.retired / name)


def _tag(manifest: Path) -> str:
    try:
        return image_tag(manifest.read_bytes())
    except FileNotFoundError:
        return ""
