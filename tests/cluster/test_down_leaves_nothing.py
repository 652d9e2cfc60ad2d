"""`mini down` finds a cluster whose state file is damaged and whose daemon is dead, and only it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from constellation.providers.local.infrastructure import workspaces
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.traces import traces
from tests.cluster.web import NODE_PORT, address_of, deploy, serves

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


class Probe:
    """Asks a NodePort without a pause, each time on a fresh connection, no retries."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self.answers: list[bool] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            self.answers.append(serves(*self._where))


def test_a_cluster_without_state_file_and_daemon_goes_and_no_other(
    web: Workspace, second: Workspace, tmp_path: Path
) -> None:
    mini = web
    assert second.folder not in workspaces().values()
    before = traces("second-cluster-is-not-there-yet")
    up = second.constellation("mini", "up", "--yes", timeout_s=1200)
    assert up.returncode == 0, up.stderr
    (uid,) = (uid for uid, folder in workspaces().items() if folder == second.folder)
    assert any(traces(uid)["cgroups"])

    # the same NodePort on both
    deploy(second, tmp_path)
    assert address_of(second) != address_of(mini)
    for both in (mini, second):
        assert eventually(lambda both=both: serves(address_of(both), NODE_PORT), seconds=30)  # type: ignore[misc]

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

    with Probe(address_of(mini), NODE_PORT) as probe:
        down = second.constellation("mini", "down", "--yes", timeout_s=300)
    assert down.returncode == 0, down.stderr
    assert len(probe.answers) > 10
    assert all(probe.answers), f"{probe.answers.count(False)} of {len(probe.answers)} failed"
    assert re.search(rf"^Removed machines, disks and network of {uid}$", down.stdout, re.MULTILINE)
    assert not second.folder.exists()
    end = time.monotonic() + _WAIT_S
    while traces(uid) != before and time.monotonic() < end:
        time.sleep(0.2)
    assert traces(uid) == before
    assert second.folder not in workspaces().values()
    assert mini.folder in workspaces().values()
    assert len(mini.objects("nodes")) == 2
