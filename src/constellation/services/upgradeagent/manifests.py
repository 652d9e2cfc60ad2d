"""The static pods of this node: whole again after a cut, ended for good, which version they are.

kubeadm moves an old manifest away and then the new one in. Cut off in between, the folder lacks
one, and kubeadm itself would refuse to go on. After a power cut the new one may also be there with
nothing in it: kubeadm does not wait for the disk. Either way the old one is put back from kubeadm's
own backup.
Source: kubeadm 1.36, phases/upgrade/staticpods.go (`/etc/kubernetes/tmp/kubeadm-backup-…`).
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError, Unavailable
from constellation.base.files import write_atomic
from constellation.services.upgradeagent.judge import image_tag

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.services.upgradeagent.paths import Paths

__all__ = [
    "API_SERVER",
    "COMPONENTS",
    "api_server_version",
    "etcd_tag",
    "is_retired",
    "make_whole",
    "retire",
]

API_SERVER = "kube-apiserver"
COMPONENTS = ("kube-scheduler", "kube-controller-manager", API_SERVER)
"""In the order in which they end: the API server last, the others still need it."""
_ETCD = "etcd"
_BACKUPS = "tmp/kubeadm-backup-manifests*"
_NUMBERS = re.compile(r"\d+")


def api_server_version(paths: Paths) -> str:
    """Give the version of this node's API server; empty where it has none. Raises FormatError."""
    return _tag(paths.manifests / f"{API_SERVER}.yaml")


def etcd_tag(paths: Paths) -> str:
    """Give the tag of this node's etcd image; empty where it has none. Raises FormatError."""
    return _tag(paths.manifests / f"{_ETCD}.yaml")


def make_whole(paths: Paths) -> None:
    """Put back each manifest that a cut left out or empty; none is missing: nothing.

    The newest version that kubeadm kept is the one that ran: versions only grow, and the times in
    its folders' names are of a clock that may have been wrong.

    Raises:
        Unavailable: there is no backup of it.
    """
    for component in (*COMPONENTS, _ETCD):
        manifest = paths.manifests / f"{component}.yaml"
        if _sound(manifest):
            continue
        kept = [p for f in paths.kubernetes.glob(_BACKUPS) if _sound(p := f / manifest.name)]
        if not kept:
            raise Unavailable(f"static pod {component} is missing, and kubeadm kept no backup")
        backup = max(kept, key=lambda p: (_order(_tag(p)), p.parent.name))
        write_atomic(manifest, backup.read_bytes(), mode=0o600)


def is_retired(paths: Paths) -> bool:
    """Say whether a static pod of this node was ended for good."""
    return any((paths.retired / f"{component}.yaml").exists() for component in COMPONENTS)


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


def _sound(manifest: Path) -> bool:
    try:
        return bool(_tag(manifest))
    except FormatError:
        return False


def _order(tag: str) -> tuple[int, ...]:
    """Give what the tags of one component's images ("v1.36.2", "3.6.8-0") are compared by."""
    return tuple(int(number) for number in _NUMBERS.findall(tag))
