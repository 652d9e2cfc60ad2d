"""The identities inside a running cluster: what each program of ours holds, and that it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.providers.local.infrastructure import LocalInfrastructure

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = pytest.mark.cluster

BUNDLE = "/run/constellation/services/bin"
DOORS = {
    "joinservice": "joinservice\njoinservice/agent.sock\n",
    "verificationservice": "verification\nverification/agent.sock\n",
    "operator": "",
}


def node_pid(mini: Workspace, group: str) -> int:
    """Give the process id of a node's init."""
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    return next(int(n.pid) for n in nodes if group in n.instance_id)


def enter(pid: int, *argv: str) -> str:
    """Run `nsenter` for a process with these arguments."""
    done = subprocess.run(
        ["nsenter", "-t", str(pid), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def in_pod(mini: Workspace, service: str, script: str) -> str:
    """Run a shell script in the mounts of a static pod of the control plane."""
    network = Path(f"/proc/{node_pid(mini, 'control')}/ns/net").readlink()
    wanted = b"\0".join((b"/usr/bin/python3", b"-ISB", f"{BUNDLE}/{service}".encode(), b""))
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == wanted and (
                (folder / "ns/net").readlink() == network
            ):
                return enter(int(folder.name), "-m", "/usr/bin/sh", "-c", script)
    raise AssertionError(f"{service} does not run")


@pytest.mark.parametrize("service", DOORS)
def test_each_pod_sees_its_own_door_of_the_agent_alone(mini: Workspace, service: str) -> None:
    script = "test -d /run/constellation/agent && cd /run/constellation/agent && find * | sort"
    shown = in_pod(mini, service, script)
    assert shown == DOORS[service]
    every = enter(node_pid(mini, "control"), "-a", "ls", "/run/constellation/agent").split()
    assert {"bootstrapper", "diskmapper", "joinservice", "verification"} <= set(every)
