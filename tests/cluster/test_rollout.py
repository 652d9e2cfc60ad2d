"""A real 1+1 cluster gets another node image, and a group grows and shrinks: no request fails."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from constellation.providers.protocols import Role
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.new_image import give_image, node_roots
from tests.cluster.probes import ApiProbe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Give a 1+1 cluster of its own: its nodes are replaced."""
    workspace = Workspace(folder=tmp_path_factory.mktemp("rollout"))
    up = workspace.constellation("mini", "up", "--yes", timeout_s=2400)
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        yield workspace
    finally:
        down = workspace.constellation("mini", "down", "--yes", timeout_s=300)
    assert down.returncode == 0, f"{down.stdout}\n{down.stderr}"


def release(workspace: Workspace) -> dict[str, Any]:
    got = workspace.kubectl("get", "clusterrelease", "cluster", "-o", "json", timeout_s=20)
    if got.returncode != 0:
        return {}
    status: dict[str, Any] = json.loads(got.stdout).get("status", {})
    return status


def settled(workspace: Workspace, *, serial: int, image: bytes, nodes: int) -> bool:
    with contextlib.suppress(Exception):
        status = release(workspace)
        images = {n["image"] for n in status.get("nodes", [])}
        return (
            status.get("phase") == "idle"
            and status.get("policySerial") == serial
            and images == {image.hex()}
            and len(status["nodes"]) == nodes
        )
    return False


def test_the_operator_shows_a_cluster_that_is_as_the_policy_says(rolled: Workspace) -> None:
    def idle() -> bool:
        return release(rolled).get("phase") == "idle"

    assert eventually(idle, seconds=90), release(rolled)
    groups = rolled.objects("nodegroups")
    assert {(g["spec"]["role"], g["spec"]["size"]) for g in groups} == {  # type: ignore[index] # JSON
        ("control-plane", 1),
        ("worker", 1),
    }


ASK_AGENT = """
import asyncio, sys
sys.path[:0] = ["/usr/lib/constellation/python"]
from constellation.base.errors import ConstellationError
from constellation.rpc.upgrade_client import UpgradeClient

async def main():
    agent = UpgradeClient()
    before = await agent.describe()
    target = {"serial": before.policy_serial, "kubernetes": before.kubernetes}
    for name in ("snapshot", "upgrade", "core_dns", "rbac"):
        await getattr(agent, name)(**target)
        print(name, "done")
    print("snapshot", (await agent.describe()).snapshot)
    for wrong in ({"serial": 99}, {"kubernetes": "v1.37.0"}):
        try:
            await agent.upgrade(**(target | wrong))
        except ConstellationError as error:
            print(type(error).__name__)
    try:
        await agent.retire(node="another")
    except ConstellationError as error:
        print(type(error).__name__)

asyncio.run(main())
"""


def test_the_upgrade_agent_runs_kubeadm_on_a_real_control_plane(rolled: Workspace) -> None:
    """To the version that it has: every phase runs, and nothing is changed by it."""
    (root,) = node_roots(rolled, Role.CONTROL_PLANE)
    pid = root.parent.name
    done = subprocess.run(
        ["nsenter", "-t", pid, "-a", "/usr/bin/python3", "-ISB", "-"],
        input=ASK_AGENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [
        *("snapshot done", "upgrade done", "core_dns done", "rbac done"),
        "snapshot True",
        *("Conflict", "Rejected", "Conflict"),
    ]
    upgrade = root / "var/lib/constellation/upgrade"
    assert [p.name for p in upgrade.glob("*.db")] == ["etcd-1.db"]
    bindings = rolled.objects("clusterrolebindings")
    names = {str(b["metadata"]["name"]) for b in bindings}  # type: ignore[index] # JSON
    assert "kubeadm:node-autoapprove-certificate-rotation" in names
    assert not names & {"kubeadm:kubelet-bootstrap", "kubeadm:node-autoapprove-bootstrap"}


def test_a_new_image_replaces_both_nodes_and_no_request_fails(
    rolled: Workspace, record_property: Callable[[str, object], None]
) -> None:
    before = {str(n["metadata"]["name"]) for n in rolled.objects("nodes")}  # type: ignore[index] # JSON
    started = time.monotonic()
    with ApiProbe(rolled) as probe:
        image = give_image(rolled)
        done = eventually(lambda: settled(rolled, serial=2, image=image, nodes=2), seconds=420)
    took = time.monotonic() - started
    record_property("seconds", round(took))
    record_property("requests", probe.asked)
    assert done, release(rolled)
    after = {str(n["metadata"]["name"]) for n in rolled.objects("nodes")}  # type: ignore[index] # JSON
    assert not before & after
    assert probe.asked > 100
    assert probe.failed == []


def test_a_group_grows_and_shrinks_as_its_object_says(rolled: Workspace) -> None:
    group = next(
        str(g["metadata"]["name"])  # type: ignore[index] # JSON
        for g in rolled.objects("nodegroups")
        if g["spec"]["role"] == "worker"  # type: ignore[index] # JSON
    )

    def ready() -> int:
        return sum(
            any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"]["conditions"])  # type: ignore[index] # JSON
            for n in rolled.objects("nodes")
        )

    with ApiProbe(rolled) as probe:
        for size, nodes in ((2, 3), (1, 2)):
            patched = rolled.kubectl(
                *("patch", "nodegroup", group, "--type=merge", "-p"),
                json.dumps({"spec": {"size": size}}),
            )
            assert patched.returncode == 0, patched.stderr
            assert eventually(
                lambda nodes=nodes: ready() == nodes == len(rolled.objects("nodes")),  # type: ignore[misc] # bound here
                seconds=120,
            ), release(rolled)
    assert probe.failed == []
