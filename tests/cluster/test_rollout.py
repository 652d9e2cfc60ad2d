"""What a roll-out rests on, on a real 1+1 cluster: the operator, the upgrade agent, its groups.

Node images and releases follow on the same cluster, in `test_upgrade.py`.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from constellation.providers.protocols import Role
from tests.cluster.conftest import eventually
from tests.cluster.new_image import node_roots
from tests.cluster.probes import ApiProbe
from tests.cluster.test_three_control_planes import ready

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def release(workspace: Workspace) -> dict[str, Any]:
    got = workspace.kubectl("get", "clusterrelease", "cluster", "-o", "json", timeout_s=20)
    if got.returncode != 0:
        return {}
    status: dict[str, Any] = json.loads(got.stdout).get("status", {})
    return status


def test_the_operator_shows_a_cluster_that_is_as_the_policy_says(changing: Workspace) -> None:
    def idle() -> bool:
        return release(changing).get("phase") == "idle"

    assert eventually(idle, seconds=90), release(changing)
    groups = changing.objects("nodegroups")
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


def test_the_upgrade_agent_runs_kubeadm_on_a_real_control_plane(changing: Workspace) -> None:
    """To the version that it has: every phase runs, and nothing is changed by it."""
    (root,) = node_roots(changing, Role.CONTROL_PLANE)
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
    bindings = changing.objects("clusterrolebindings")
    names = {str(b["metadata"]["name"]) for b in bindings}  # type: ignore[index] # JSON
    assert "kubeadm:node-autoapprove-certificate-rotation" in names
    assert not names & {"kubeadm:kubelet-bootstrap", "kubeadm:node-autoapprove-bootstrap"}


def test_a_group_grows_by_scale_and_shrinks_by_apply_and_no_request_fails(
    changing: Workspace,
) -> None:
    conf = changing.folder / "constellation-conf.yaml"
    with ApiProbe(changing) as probe:
        done = changing.constellation("scale", "worker_default", "2", timeout_s=400)
        assert done.returncode == 0, done.stderr
        assert "Group worker_default has 2 nodes." in done.stdout
        assert ready(changing) == len(changing.objects("nodes")) == 3

        written = conf.read_text()
        assert written.count("size: 2\n") == 1, written
        conf.write_text(written.replace("size: 2\n", "size: 1\n"))
        planned = changing.constellation("apply", "--plan")
        assert "sizes: worker_default: size 1 is wanted" in planned.stdout, planned.stdout
        done = changing.constellation("apply", "--yes", timeout_s=400)
        assert done.returncode == 0, done.stderr
        assert ready(changing) == len(changing.objects("nodes")) == 2
        planned = changing.constellation("apply", "--plan")
        assert planned.stdout.strip() == "Nothing to do.", planned.stdout
    assert probe.failed == []
