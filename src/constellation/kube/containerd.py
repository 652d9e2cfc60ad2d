"""How containerd is configured, and how it gets the pinned images without importing them.

Pure: texts, and the plan of what is copied and bound from the mounted content. Sources: containerd
2.2, docs/man/containerd-config.toml.5 (version 3), docs/cri/config.md, docs/hosts.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from constellation.kube.kubeadm import PAUSE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BLOBS",
    "CONFIG",
    "HOSTS",
    "ROOT",
    "SNAPSHOTS",
    "ContentPlan",
    "configuration",
    "content_plan",
    "hosts",
]

CONFIG: Final = Path("/run/constellation/containerd/config.toml")
HOSTS: Final = Path("/run/constellation/containerd/certs.d")
ROOT: Final = Path("/var/lib/containerd")

_DATABASES = (
    "io.containerd.snapshotter.v1.overlayfs/metadata.db",
    "io.containerd.metadata.v1.bolt/meta.db",
)
SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
BLOBS = "io.containerd.content.v1.content/blobs/sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPlan:
    """Paths below containerd's root: `copy` once, `bind` (read-only) at each boot."""

    copy: tuple[str, ...]
    bind: tuple[str, ...]


def configuration(*, systemd_cgroups: bool, cni_bin: str, cni_config: str) -> bytes:
    """Give config.toml: no sandbox image but the pinned one, no CNI configuration but ours.

    Scores for the kernel's OOM killer go no lower than containerd's own: a machine inside a
    machine may not be allowed to.
    """
    return f"""version = 3
root = "{ROOT}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{HOSTS}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{cni_bin}"]
conf_dir = "{cni_config}"
max_conf_num = 1
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = {"true" if systemd_cgroups else "false"}
""".encode()


def hosts(registry: str) -> bytes:
    """Give `_default/hosts.toml`: every registry is asked through the mirror `registry` (URL)."""
    return f"""[host."{registry}"]
capabilities = ["pull", "resolve"]
""".encode()


def content_plan(snapshots: Iterable[str], blobs: Iterable[str]) -> ContentPlan:
    """Plan the use of a content folder that holds these snapshots (numbers) and blobs (hex)."""
    return ContentPlan(
        copy=_DATABASES,
        bind=(
            *(f"{SNAPSHOTS}/{name}" for name in sorted(snapshots)),
            *(f"{BLOBS}/{name}" for name in sorted(blobs)),
        ),
    )
