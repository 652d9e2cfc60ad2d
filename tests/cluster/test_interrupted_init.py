"""An init that is killed or interrupted half-way: the same command again completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from constellation.config.state import read_state
from tests.cluster.conftest import ROOT, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the nodes"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Give a workspace whose machines wait for `init`."""
    made = Workspace(folder=tmp_path / "cluster")
    try:
        for words in (("config", "generate", "local"), ("create", "--yes")):
            done = made.constellation(*words, timeout_s=900)
            assert done.returncode == 0, done.stderr
        yield made
    finally:
        down = made.constellation("terminate", "--yes")
    assert down.returncode == 0, down.stderr


def _init_until(workspace: Workspace, step: str, number: signal.Signals) -> tuple[int, list[str]]:
    """Start `init`, send it a signal when it says `step`; give exit code and what it said."""
    with subprocess.Popen(
        [sys.executable, "-m", "constellation.cli.main", "-C", str(workspace.folder), "init"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        timer = threading.Timer(300, process.kill)
        timer.start()
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.strip())
            if step in line:
                process.send_signal(number)
        timer.cancel()
    return process.returncode, said


def test_the_same_command_again_completes_a_killed_and_an_interrupted_init(
    workspace: Workspace,
) -> None:
    path = workspace.folder / "constellation-state.yaml"
    code, said = _init_until(workspace, "kubeadm kubelet-start", signal.SIGKILL)
    assert code == -signal.SIGKILL, said
    killed = read_state(path)
    assert killed is not None
    assert killed.init is not None

    code, said = _init_until(workspace, "its steps follow", signal.SIGINT)
    if code == 0:
        # the node had gone on alone and was finished when the second init asked
        assert any("Nodes Ready" in line for line in said)
    else:
        assert code == 130, said
        assert said[-3] == "Interrupted. What was finished is kept."
        assert said[-2].endswith(" init")
        assert said[-1].endswith(f"-C {workspace.folder} terminate")

    done = workspace.constellation("init")
    assert done.returncode == 0, done.stderr
    finished = read_state(path)
    assert finished is not None
    assert finished.init == killed.init
    assert finished.cluster_id == killed.cluster_id
    nodes = workspace.objects("nodes")
    assert len(nodes) == 2
    status = workspace.constellation("status")
    assert status.returncode == 0
    assert "All is well." in status.stdout
