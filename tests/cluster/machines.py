"""Machines of a running local cloud, as their operator has them: switched, entered, their disks."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from constellation.providers.local.daemon.layout import Layout
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.cluster.conftest import Workspace

__all__ = [
    "disk_of",
    "inside",
    "is_ready",
    "journal",
    "machine",
    "machine_by_id",
    "power",
    "ready_again",
]


def machine(workspace: Workspace, role: str, index: int = 0) -> pb.Node:
    """Give a machine of a role as it is now; `index` counts those of that role."""
    nodes = asyncio.run(LocalInfrastructure(workspace.uid).nodes())
    ours = sorted((n for n in nodes if n.role == role), key=lambda n: n.instance_id)
    return ours[index]


def power(workspace: Workspace, instance_id: str, action: str) -> None:
    """Switch a machine."""
    asyncio.run(LocalInfrastructure(workspace.uid).power(instance_id, action))


def disk_of(workspace: Workspace, instance_id: str) -> Path:
    """Give the file that is a machine's state disk."""
    return Layout.of(workspace.uid).node_state(instance_id) / "state-disk"


def inside(pid: int, *argv: str, stdin: str = "") -> str:
    """Run a program in all namespaces of a process; gives what it said on both outputs."""
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-a", *argv],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def journal(node: pb.Node, unit: str) -> str:
    """Give what a unit of a machine has said in this boot; empty while it does not run."""
    if not node.pid:
        return ""
    return inside(node.pid, "journalctl", "--no-pager", "-o", "cat", "-u", unit)


def is_ready(workspace: Workspace, address: str) -> bool:
    """Say whether the Node object with this address is Ready."""
    got = workspace.kubectl("--request-timeout=3s", "get", "nodes", "-o", _READY)
    lines = (line.split() for line in got.stdout.splitlines())
    return any(words == [address, "True"] for words in lines)


_READY = (
    "jsonpath={range .items[*]}"
    '{.status.addresses[?(@.type=="InternalIP")].address} '
    '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
)


def ready_again(workspace: Workspace, node: pb.Node, *, seconds: float) -> bool:
    """Wait until a machine has another init than `node.pid` and its kubelet reports from there."""

    def back() -> bool:
        now = machine_by_id(workspace, node.instance_id)
        if not now.pid or now.pid == node.pid:
            return False
        active = inside(now.pid, "systemctl", "is-active", "kubelet.service").strip()
        return active == "active" and is_ready(workspace, node.address)

    return eventually(back, seconds=seconds)


def machine_by_id(workspace: Workspace, instance_id: str) -> pb.Node:
    """Give a machine as it is now."""
    nodes = asyncio.run(LocalInfrastructure(workspace.uid).nodes())
    return next(n for n in nodes if n.instance_id == instance_id)
