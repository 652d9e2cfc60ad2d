"""A machine that lacks something: the command says what and what to do, and leaves nothing behind.

Each case is a real one: a full disk below /var/lib (in a mount namespace of its own), more nodes
than there is memory for, a program that listens where the load balancer would.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from constellation.providers.local.infrastructure import workspaces
from tests.cluster.conftest import Workspace
from tests.cluster.traces import traces

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the nodes"),
]

NOBODY = "no-cluster-has-this-id"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(folder=tmp_path / "cluster")
    generated = made.constellation("config", "generate", "local")
    assert generated.returncode == 0, generated.stderr
    return made


def left(workspace: Workspace) -> tuple[dict[str, list[str]], bool]:
    """Give what a cloud of this workspace would leave on the machine."""
    return traces(NOBODY), workspace.folder in workspaces().values()


def refused(workspace: Workspace, done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Demand exit code 7, a hint, and the words."""
    assert done.returncode == 7, f"{done.returncode}: {done.stderr}"
    assert "Hint: " in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    state = workspace.folder / "constellation-state.yaml"
    assert not state.exists() or "infrastructure: null" in state.read_text()


def with_full_disk(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command for which 64 MB are left below /var/lib."""
    script = 'mount -t tmpfs -o size=64m full /var/lib && exec "$@"'
    return workspace.constellation(
        *words, timeout_s=120, within=("unshare", "--mount", "sh", "-c", script, "sh")
    )


def test_a_full_disk_is_refused_before_anything_is_made(workspace: Workspace) -> None:
    before = left(workspace)
    done = with_full_disk(workspace, "create", "--yes")
    refused(workspace, done, "disk below /var/lib", "GB free", "free some disk")
    assert left(workspace) == before


def test_a_disk_that_fills_up_while_a_cluster_runs_is_said(mini: Workspace) -> None:
    enough = mini.constellation("status")
    assert "All is well." in enough.stdout, enough.stdout + enough.stderr
    short = with_full_disk(mini, "status")
    assert short.returncode == 0, short.stderr
    assert "Next: free some disk: 0.1 GB are left below /var/lib" in short.stdout
    assert json.loads(with_full_disk(mini, "status", "-o", "json").stdout)["shortage"]


def test_more_nodes_than_memory_are_refused_before_anything_is_made(workspace: Workspace) -> None:
    before = left(workspace)
    conf = workspace.folder / "constellation-conf.yaml"
    yaml = YAML()
    wanted = yaml.load(conf)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for number in range(1 + total // (50 * 10**9 // 2)):
        wanted["nodeGroups"][f"many_{number}"] = {"role": "worker", "size": 50}
    yaml.dump(wanted, conf)
    kept = conf.read_bytes()
    done = workspace.constellation("create", "--yes", timeout_s=120)
    refused(workspace, done, "memory", "GB free", "nodes need", "nodeGroups")
    assert left(workspace) == before
    assert conf.read_bytes() == kept, "nothing of the user's is changed"


def test_a_busy_port_is_named_and_nothing_is_left(workspace: Workspace) -> None:
    before = left(workspace)
    # on all addresses, so that no loopback address has all of our ports
    with socket.create_server(("0.0.0.0", 20091)):  # noqa: S104 - that is the case
        done = workspace.constellation("create", "--yes", timeout_s=200)
    refused(workspace, done, "no loopback address is free", "20000-20099", "ss -ltnp")
    assert "Traceback" not in done.stderr
    assert workspace.constellation("terminate", "--yes").returncode == 0
    assert left(workspace) == before
