"""The main job on the real thing: what a user does with `mini up` and what comes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import eventually

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = pytest.mark.cluster


def _ready(node: dict[str, object]) -> bool:
    status = node["status"]
    assert isinstance(status, dict)
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])


def _runs(pod: dict[str, object]) -> bool:
    """Say whether every container is ready: a pod is "Running" also while one crashes again."""
    status = pod["status"]
    assert isinstance(status, dict)
    containers = status.get("containerStatuses", [])
    return bool(containers) and all(c["ready"] for c in containers)


def test_one_control_plane_and_one_worker_are_ready(mini: Workspace) -> None:
    nodes = mini.objects("nodes")
    assert len(nodes) == 2
    assert all(map(_ready, nodes))


def test_kubectl_has_the_version_of_the_cluster(mini: Workspace) -> None:
    version = json.loads(mini.kubectl("version", "-o", "json").stdout)
    assert version["clientVersion"]["gitVersion"] == version["serverVersion"]["gitVersion"]


def test_system_pods_run(mini: Workspace) -> None:
    def all_run() -> bool:
        pods = mini.objects("pods", "-n", "kube-system")
        return bool(pods) and all(map(_runs, pods))

    assert eventually(all_run, seconds=60), mini.kubectl("get", "pods", "-A").stdout


def test_up_again_says_that_it_runs(mini: Workspace) -> None:
    again = mini.constellation("mini", "up", "--yes", "-o", "json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already"] is True


def test_every_node_proves_itself_and_a_wrong_cluster_id_is_refused(mini: Workspace) -> None:
    verified = mini.constellation("verify", "-o", "json")
    assert verified.returncode == 0, verified.stderr
    report = json.loads(verified.stdout)
    assert len(report["nodes"]) == 2
    wrong = mini.constellation("verify", "--cluster-id", "A" * 43 + "=")
    assert wrong.returncode == 5, f"{wrong.returncode}: {wrong.stdout}{wrong.stderr}"
    assert "pcr15" in wrong.stderr


def test_secrets_cannot_be_read_in_the_files_of_etcd(mini: Workspace) -> None:
    canary = "canary-6f1d2c"
    made = mini.kubectl("create", "secret", "generic", "canary", f"--from-literal=key={canary}")
    assert made.returncode == 0, made.stderr
    assert "k8s:enc:kms:v2:" in _etcd_value(mini, "/registry/secrets/default/canary")


def _etcd_value(mini: Workspace, key: str) -> str:
    pod = "etcd-" + next(
        str(n["metadata"]["name"])  # type: ignore[index] # JSON of a node
        for n in mini.objects("nodes")
        if "node-role.kubernetes.io/control-plane" in n["metadata"]["labels"]  # type: ignore[index] # JSON of a node
    )
    pki = "/etc/kubernetes/pki/etcd"
    got = mini.kubectl(
        *("exec", "-n", "kube-system", pod, "--", "etcdctl"),
        *(f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"),
        *("get", key, "--print-value-only"),
    )
    assert got.returncode == 0, got.stderr
    return got.stdout
