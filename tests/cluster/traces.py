"""Everything on this machine that a local cloud makes: the same before it as after it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["control_groups", "traces"]


def control_groups() -> Iterator[Path]:
    """Give every control group of this machine; one that goes meanwhile is no error."""
    return (Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup"))


def _said(*argv: str) -> list[str]:
    if shutil.which(argv[0]) is None:
        return []
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def traces(uid: str) -> dict[str, list[str]]:
    """Look at everything that a cluster makes on its machine; `uid` picks what is its own."""
    folders = (f"{base}/constellation/{uid}" for base in ("/run", "/var/lib"))
    return {
        "cgroups": sorted(str(p) for p in control_groups() if uid in p.name),
        "firewall": _said("nft", "list", "ruleset"),
        "folders": [folder for folder in folders if Path(folder).exists()],
        "links": sorted(name for _, name in socket.if_nameindex()),
        "loops": [
            str(p.parent.parent.name)
            for p in Path("/sys/block").glob("loop*/loop/backing_file")
            if uid in _read(p)
        ],
        "mounts": sorted(
            line.split(" ")[4]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if "/constellation" in line or uid in line
        ),
        "namespaces": [str(p) for p in Path("/run/netns").glob(f"*{uid}*")],
        "programs": [line for line in _said("ps", "-eo", "args") if f"/{uid}" in line],
        "sockets": [line for line in _read(Path("/proc/net/unix")).splitlines() if uid in line],
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
