"""The upgrade drill: a new node image under load, every failed request counted (root).

    make drill-upgrade                         3+2 nodes, results in bench/results
    python -m tests.drills.upgrade --control-planes 1 --workers 1

Load, from before the first step until after the last: a Service of 3 replicas (preStop sleep,
disruption budget) at 50 requests a second through the load balancer on fresh connections; the API
at 20 reads a second, half on fresh and half on kept HTTP/2 connections; 5 acknowledged writes a
second, and a watch of them held open. Failed: refused, reset, over 5 s, 429 or 5xx, each without
a second try; a write that is lost; a watch event that is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.new_image import give_image
from tests.cluster.probes import ApiProbe, ServiceProbe, WriteProbe
from tests.fakes.user_image import write_archive

RESULTS = Path(__file__).resolve().parents[2] / "bench/results"
IMAGE, NODE_PORT = "example.test/web:1", 30124
WITHIN_S = 450
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


def create(workspace: Workspace, *, control_planes: int, workers: int) -> None:
    """Make the cluster, step by step."""
    generated = workspace.constellation("config", "generate", "local")
    assert generated.returncode == 0, generated.stderr
    conf = workspace.folder / "constellation-conf.yaml"
    text, one = conf.read_text(), "size: 1\n"
    assert text.count(one) == 2
    first, second, third = text.split(one)
    conf.write_text(f"{first}size: {control_planes}\n{second}size: {workers}\n{third}")
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


class Machines:
    """When each machine came and went, by the provider."""

    def __init__(self, workspace: Workspace) -> None:
        self._cloud = LocalInfrastructure(workspace.uid)
        self._came: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self._first: set[str] | None = None

    def look(self) -> None:
        now = time.monotonic()
        present = {m.instance_id for m in asyncio.run(self._cloud.nodes())}
        if self._first is None:
            self._first = present
        for machine in present - self._first:
            self._came.setdefault(machine, now)
        for machine in self._first - present:
            self._gone.setdefault(machine, now)

    def replacements_s(self) -> list[int]:
        """Give, in order, seconds from a new machine's creation to its predecessor's end."""
        came, gone = sorted(self._came.values()), sorted(self._gone.values())
        return [round(end - start) for start, end in zip(came, gone, strict=False)]


def settled(workspace: Workspace, *, image: bytes, nodes: int) -> bool:
    got = workspace.kubectl("get", "clusterrelease", "cluster", "-o", "json", timeout_s=20)
    if got.returncode != 0:
        return False
    status = json.loads(got.stdout).get("status", {})
    shown = status.get("nodes", [])
    return (
        status.get("phase") == "idle"
        and {n["image"] for n in shown} == {image.hex()}
        and len(shown) == nodes
    )


def roll(workspace: Workspace, *, nodes: int) -> dict[str, Any]:
    """Roll out a new image under load; gives the figures."""
    machines = Machines(workspace)
    machines.look()
    service = ServiceProbe(workspace, port=NODE_PORT, every_s=0.1, threads=5)
    api, writes = ApiProbe(workspace, every_s=0.1), WriteProbe(workspace, every_s=0.2)
    with service, api, writes:
        time.sleep(5)
        started = time.monotonic()
        image = give_image(workspace)

        def done() -> bool:
            machines.look()
            return settled(workspace, image=image, nodes=nodes)

        finished = eventually(done, seconds=WITHIN_S)
        took_s = time.monotonic() - started
        time.sleep(5)
    return {
        "finished": finished,
        "seconds": round(took_s),
        "replacements_s": machines.replacements_s(),
        "service": {"requests": service.asked, "failed": service.failed},
        "api": {"requests": api.asked, "failed": api.failed},
        "writes": {
            "acknowledged": writes.acknowledged,
            "failed": writes.failed,
            "lost": writes.lost,
            "watch_events_missed": writes.missed,
        },
    }


def show(workspace: Workspace) -> None:
    """Write what the operators and the release say to standard error."""
    say(workspace.kubectl("get", "clusterrelease", "cluster", "-o", "yaml").stdout)
    pods = workspace.kubectl("get", "pods", "-n", "kube-system", "-o", "name").stdout.split()
    for pod in (p for p in pods if "constellation-operator" in p):
        say(pod, workspace.kubectl("logs", "-n", "kube-system", pod, "--tail=200").stdout)


def main() -> int:
    """Run the drill; 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--control-planes", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    nodes = given.control_planes + given.workers
    workspace = Workspace(folder=Path(tempfile.mkdtemp(prefix="drill-")))
    try:
        create(workspace, control_planes=given.control_planes, workers=given.workers)
        say("cluster is up")
        deploy(workspace)
        say("load begins")
        figures = roll(workspace, nodes=nodes)
        show(workspace)
    finally:
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    if gone.returncode == 0:
        shutil.rmtree(workspace.folder)
    figures = {"nodes": f"{given.control_planes}+{given.workers}", "what": "image"} | figures
    text = json.dumps(figures, indent=1) + "\n"
    (RESULTS / f"drill-upgrade-image-{given.control_planes}+{given.workers}.json").write_text(text)
    sys.stdout.write(text)
    failed = (*figures["service"]["failed"], *figures["api"]["failed"])
    bad = any(figures["writes"][k] for k in ("failed", "lost", "watch_events_missed"))
    return 0 if figures["finished"] and not failed and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
