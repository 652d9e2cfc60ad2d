"""An init that is cut off half-way, with three control planes waiting: it completes, once.

Then two control planes join at once, and one is destroyed between its etcd member's addition and
its promotion: the other one joins. `make interruptions` cuts after each step of the code's list.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from constellation.config.state import read_state
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster import interruptions
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.machines import inside, is_ready, machine, power

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from constellation.config.state import ChosenNode

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the nodes"),
]

FIRST_LEARNER = """
import asyncio, sys
sys.path[:0] = ["/usr/lib/constellation/python"]
from pathlib import Path
from constellation.base.errors import ConstellationError
from constellation.kube.etcd import Etcd

async def main():
    etcd = Etcd(Path("/etc/kubernetes/pki"))
    while True:
        try:
            for member in await etcd.members():
                if member.learner or "members" in sys.argv:
                    print(member.address, "learner" if member.learner else "voter", flush=True)
            if "members" in sys.argv:
                return
        except ConstellationError:
            pass
        await asyncio.sleep(0.05)

asyncio.run(main())
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Give a workspace whose machines wait for `init`: three control planes, one worker."""
    folder = tmp_path / "cluster"
    try:
        yield interruptions.create(folder, control_planes=3)
    finally:
        down = Workspace(folder=folder).constellation("terminate", "--yes")
    assert down.returncode == 0, down.stderr


def _chosen(workspace: Workspace) -> tuple[ChosenNode | None, bytes]:
    state = read_state(workspace.folder / "constellation-state.yaml")
    assert state is not None
    return state.init, state.cluster_id


def _members(workspace: Workspace) -> dict[str, str]:
    """Give etcd's members as the first control plane knows them: address and part."""
    pid = machine(workspace, "control-plane").pid
    said = inside(pid, "python3", "-I", "-", "members", stdin=FIRST_LEARNER)
    return dict(line.split() for line in said.splitlines())


def _voters(workspace: Workspace) -> set[str]:
    return {address for address, part in _members(workspace).items() if part == "voter"}


def _destroy_first_learner(workspace: Workspace) -> tuple[str, str]:
    """Wait for a learner, take its machine's power, then delete it; gives its and the other's."""
    planes = [machine(workspace, "control-plane", index) for index in range(3)]
    with subprocess.Popen(
        ["nsenter", "-t", str(planes[0].pid), "-a", "python3", "-I", "-c", FIRST_LEARNER],
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        try:
            assert watch.stdout is not None
            address = watch.stdout.readline().split()[0]
        finally:
            watch.kill()
    victim = next(p for p in planes[1:] if p.address == address)
    power(workspace, victim.instance_id, "kill")
    asyncio.run(LocalInfrastructure(workspace.uid).delete(victim.instance_id))
    return address, next(p.address for p in planes[1:] if p.address != address)


def test_an_interrupted_init_completes_and_a_lost_learner_keeps_nobody_out(
    workspace: Workspace,
) -> None:
    code, said, _ = interruptions.interrupted(
        workspace, "bootstrapper killed", "Start the cluster: kubeadm certs all: done"
    )
    assert code not in (0, 1), said
    first = _chosen(workspace)
    assert first[0] is not None

    code, said, _ = interruptions.interrupted(
        workspace, "node power-cycled", "Start the cluster: kubeadm etcd local: done"
    )
    assert code not in (0, 1), said

    code, said, _ = interruptions.interrupted(
        workspace, "command killed", "Start the cluster: kubeadm kubelet-start"
    )
    assert code == -9, said

    code, said, cut = interruptions.interrupted(
        workspace, "command interrupted", "its steps follow"
    )
    assert cut, said
    if code == 0:
        # the node had gone on alone and was finished when the command asked again
        assert any("Nodes Ready" in line for line in said)
    else:
        assert code == 130, said
        assert said[-3] == "Interrupted. What was finished is kept."
        assert said[-2].endswith(" init")
        assert said[-1].endswith(f"-C {workspace.folder} terminate")

    with workspace.begin("init", limit_s=interruptions.LIMIT_S):
        lost, other = _destroy_first_learner(workspace)
        kept = machine(workspace, "control-plane").address
        # a third may be there already: the operator makes a machine in the lost one's place
        assert eventually(
            lambda: _voters(workspace) >= {kept, other} and lost not in _members(workspace),
            seconds=240,
        ), _members(workspace)
        assert eventually(lambda: is_ready(workspace, other), seconds=60)
    assert _chosen(workspace) == first, "there was never another cluster"
    # the operator made a machine in the lost one's place
    assert eventually(lambda: len(workspace.objects("nodes")) == 4, seconds=240)
    assert lost not in workspace.kubectl("get", "nodes", "-o", "wide").stdout
    done = workspace.constellation("init")
    assert done.returncode == 0, done.stderr
    verified = workspace.constellation("verify")
    assert verified.returncode == 0, verified.stderr
