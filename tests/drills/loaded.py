"""A real cluster with a Service whose requests are counted: what every drill begins with."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.config.writer import set_fields
from tests.cluster.conftest import eventually
from tests.cluster.probes import ServiceProbe
from tests.fakes.user_image import write_archive

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = ["NODE_PORT", "RESULTS", "create", "deploy", "say"]

RESULTS = Path(__file__).resolve().parents[2] / "bench/results"
IMAGE, NODE_PORT = "example.test/web:1", 30124
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                # busybox's server does not end when it is asked to
                "terminationGracePeriodSeconds": 13,
                "containers": [
                    {
                        "name": "web",
                        "image": IMAGE,
                        "command": ["/bin/sh", "-c"],
                        "args": ["echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"],
                        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                        # until every node's kube-proxy has taken the pod out of the Service
                        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", "10"]}}},
                    }
                ],
            },
        },
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {
        "type": "NodePort",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
    },
}
BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "web"},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
}


def say(*words: object) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {' '.join(map(str, words))}\n")


def create(
    workspace: Workspace,
    *,
    kubernetes: str,
    control_planes: int,
    workers: int,
    of_workers: str = "",
) -> None:
    """Make the cluster, step by step; `of_workers`: lines for the workers' group in the conf."""
    generated = workspace.constellation("config", "generate", "local")
    assert generated.returncode == 0, generated.stderr
    conf = workspace.folder / "constellation-conf.yaml"
    text, one = conf.read_text(), "size: 1\n"
    assert text.count(one) == 2
    first, second, third = text.split(one)
    text = f"{first}size: {control_planes}\n{second}size: {workers}\n{of_workers}{third}"
    conf.write_text(set_fields(text, {"kubernetesVersion": kubernetes}))
    for verb in ("create", "init"):
        done = workspace.constellation(verb, "--yes", timeout_s=1500)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def deploy(workspace: Workspace) -> None:
    """Bring the Service, and wait for its replicas."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    archive = workspace.folder / "web.tar"
    write_archive(archive, reference=IMAGE, busybox=Path(busybox))
    loaded = workspace.constellation("mini", "load-image", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    objects = {"apiVersion": "v1", "kind": "List", "items": [WEB, SERVICE, BUDGET]}
    applied = workspace.kubectl("apply", "-f", "-", stdin=json.dumps(objects))
    assert applied.returncode == 0, applied.stderr
    waited = workspace.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    assert waited.returncode == 0, waited.stdout + waited.stderr
    with ServiceProbe(workspace, port=NODE_PORT, every_s=0.1, threads=1) as probe:
        assert eventually(lambda: probe.in_a_row >= 30, seconds=60), probe.failed
