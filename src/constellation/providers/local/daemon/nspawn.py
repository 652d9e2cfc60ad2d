"""The command line that boots a node from its image, and what the node's kernel is told (pure).

Sources: systemd-nspawn(1), systemd's docs/ENVIRONMENT.md (SYSTEMD_NSPAWN_*), seams.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COMMAND_LINE", "LEGACY_ARGUMENTS", "arguments", "command_line", "environment"]

COMMAND_LINE = "constellation.provider=local constellation.variant=local-vtpm"
"""Measured into PCR 9 and 11 (seams.md)."""

LEGACY_ARGUMENTS = "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0"
"""systemd 257 asks for these on a cgroup v1 host."""


def command_line(cgroup_version: int) -> str:
    """Give the node's command line: exactly what is measured and what its init is started with."""
    return f"{COMMAND_LINE} {LEGACY_ARGUMENTS}" if cgroup_version == 1 else COMMAND_LINE


def environment() -> dict[str, str]:
    """Give what nspawn itself is told by its environment."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        # /sys and /proc/sys writable: kubelet and kube-proxy set them in the node's own namespaces
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
        # the image is mounted read-only, once a node
        "SYSTEMD_NSPAWN_LOCK": "0",
    }


def arguments(
    *, root: Path, instance_id: str, netns: Path, host: Path, artifacts: Path, init: str
) -> tuple[str, ...]:
    """Give nspawn's arguments; `init` is the measured command line, split at spaces."""
    return (
        f"--directory={root}",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--volatile=overlay",
        f"--machine={instance_id}",
        f"--network-namespace-path={netns}",
        "--capability=all",
        "--system-call-filter=add_key keyctl bpf",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        f"--bind-ro={host}:/run/constellation/host",
        f"--bind-ro={artifacts}/sha256:/run/constellation/host/artifacts/sha256",
        "--bind=/dev/fuse",
        "--bind=/dev/kmsg",
        "--bind=/dev/net/tun",
        # a terminal of its own: only then is there a /dev/console, and journald writes to it
        "--console=read-only",
        "--boot",
        *init.split(" "),
    )
