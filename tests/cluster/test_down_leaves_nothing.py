"""`mini down` finds a cluster whose state file is damaged and whose daemon is dead, and only it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.providers.local.infrastructure import workspaces
from tests.cluster.conftest import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the nodes"),
]

_WAIT_S = 10.0


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Workspace]:
    """Give a workspace for one more cluster."""
    workspace = Workspace(folder=tmp_path / "second")
    yield workspace
    workspace.constellation("mini", "down", "--yes")


def _said(*argv: str) -> list[str]:
    if shutil.which(argv[0]) is None:
        return []
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def _machine(uid: str) -> dict[str, list[str]]:
    """Look at everything that a cluster makes on its machine; `uid` picks what is its own."""
    folders = (f"{base}/constellation/{uid}" for base in ("/run", "/var/lib"))
    return {
        "cgroups": [str(p) for p in Path("/sys/fs/cgroup").glob(f"**/*{uid}*")],
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


def test_a_cluster_without_state_file_and_daemon_goes_and_no_other(
    mini: Workspace, second: Workspace
) -> None:
    assert second.folder not in workspaces().values()
    before = _machine("second-cluster-is-not-there-yet")
    up = second.constellation("mini", "up", "--yes", timeout_s=1200)
    assert up.returncode == 0, up.stderr
    (uid,) = (uid for uid, folder in workspaces().items() if folder == second.folder)
    assert any(_machine(uid)["cgroups"])

    state = second.folder / "constellation-state.yaml"
    state.write_bytes(state.read_bytes()[:100])
    refused = second.constellation("status")
    assert refused.returncode == 3
    assert "constellation-state.yaml: expected a state file, found a part of one" in refused.stderr
    assert "mini down" in refused.stderr
    (daemon,) = {
        int(pid)
        for path in Path("/sys/fs/cgroup").glob(f"**/constellation-{uid}/daemon/cgroup.procs")
        for pid in path.read_text().split()
    }
    os.kill(daemon, signal.SIGKILL)

    down = second.constellation("mini", "down", "--yes", timeout_s=300)
    assert down.returncode == 0, down.stderr
    assert re.search(rf"^Removed machines, disks and network of {uid}$", down.stdout, re.MULTILINE)
    assert not second.folder.exists()
    end = time.monotonic() + _WAIT_S
    while _machine(uid) != before and time.monotonic() < end:
        time.sleep(0.2)
    assert _machine(uid) == before
    assert second.folder not in workspaces().values()
    assert mini.folder in workspaces().values()
    assert len(mini.objects("nodes")) == 2
