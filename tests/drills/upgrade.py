"""The upgrade drill: new nodes under load, every failed request counted (root).

    make drill-upgrade                         a new image, 3+2 nodes, results in bench/results
    make drill-upgrade KIND=minor              Kubernetes' next minor version and a new image
    python -m tests.drills.upgrade --kind minor --control-planes 1 --workers 1

`image` puts the policy onto the control planes' disks and watches the operator alone. `minor` goes
the whole way: a cluster of the older Kubernetes follows a published release, and `upgrade apply`
brings it to the next one; then `upgrade rollback` must be refused.

Load, from before the first step until after the last: a Service of 3 replicas (preStop sleep,
disruption budget) at 50 requests a second through the load balancer on fresh connections; the API
at 20 reads a second, half on fresh and half on kept HTTP/2 connections; 5 acknowledged writes a
second, and a watch of them held open. Failed: refused, reset, over 5 s, 429 or 5xx, each without
a second try; a write that is lost; a watch event that is missed; a look at the versions that finds
a kubelet newer than an API server, or API servers more than one minor version apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.config.workspace import cache_folder
from constellation.config.writer import set_fields
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.new_image import give_image
from tests.cluster.probes import ApiProbe, ServiceProbe, WriteProbe
from tests.cluster.second_release import publish_second
from tests.drills.versions import Versions
from tests.fakes.user_image import write_archive

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).resolve().parents[2] / "bench/results"
IMAGE, NODE_PORT = "example.test/web:1", 30124
WITHIN_S = 600
OLDER, NEWER = "v1.35.3", "v1.36.2"
CONFLICT = 7
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


def new_image(workspace: Workspace, *, nodes: int) -> bool:
    """Put the next policy onto the disks, and wait for the operator."""
    image = give_image(workspace)
    return eventually(lambda: settled(workspace, image=image, nodes=nodes), seconds=WITHIN_S)


def follow(workspace: Workspace, *, release: str, kubernetes: str) -> bool:
    """Go to a release as a user does."""
    conf = workspace.folder / "constellation-conf.yaml"
    fields = {"release": release, "kubernetesVersion": kubernetes}
    conf.write_text(set_fields(conf.read_text(), fields))
    done = workspace.constellation("upgrade", "apply", timeout_s=WITHIN_S)
    say("upgrade apply", release, kubernetes, done.returncode, done.stdout, done.stderr[-1500:])
    return done.returncode == 0


def publish(workspace: Workspace, folder: Path) -> str:
    """Have two releases, and the cluster follow the first; gives the second."""
    checked = workspace.constellation("upgrade", "check", timeout_s=300)
    assert checked.returncode == 0, checked.stderr
    first, second = publish_second(workspace, folder)
    assert follow(workspace, release=first, kubernetes=OLDER)
    return second


def refused_way_back(workspace: Workspace) -> str:
    """Give what `upgrade rollback` says; it must change nothing."""
    before = (workspace.folder / "constellation-state.yaml").read_bytes()
    done = workspace.constellation("upgrade", "rollback", timeout_s=300)
    assert done.returncode == CONFLICT, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert (workspace.folder / "constellation-state.yaml").read_bytes() == before
    return done.stderr.strip()


def roll(workspace: Workspace, go: Callable[[], bool]) -> dict[str, Any]:
    """Roll out under load; gives the figures."""
    machines, versions = Machines(workspace), Versions(workspace)
    machines.look()
    service = ServiceProbe(workspace, port=NODE_PORT, every_s=0.1, threads=5)
    api, writes = ApiProbe(workspace, every_s=0.1), WriteProbe(workspace, every_s=0.2)
    with service, api, writes, ThreadPoolExecutor(max_workers=1) as pool:
        time.sleep(5)
        started = time.monotonic()
        going = pool.submit(go)
        while not going.done():
            machines.look()
            versions.look()
            time.sleep(0.5)
        finished = going.result()
        took_s = time.monotonic() - started
        time.sleep(5)
    return {
        "finished": finished,
        "seconds": round(took_s),
        "api_servers_new_after_s": [round(at - started) for at in versions.changes],
        "replacements_s": machines.replacements_s(),
        "version_skew": {"looks": versions.looks, "violations": versions.violations},
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


def drill(workspace: Workspace, *, kind: str, nodes: int, image: Path) -> dict[str, Any]:
    """Run the roll-out of this kind; `image` is a folder for the second release's."""
    deploy(workspace)
    if kind == "image":
        say("load begins")
        return {"what": "image"} | roll(workspace, lambda: new_image(workspace, nodes=nodes))
    second = publish(workspace, image)
    say("load begins")
    figures = roll(workspace, lambda: follow(workspace, release=second, kubernetes=NEWER))
    back = refused_way_back(workspace) if figures["finished"] else ""
    return {"what": f"{OLDER} to {NEWER}, and image"} | figures | {"rollback": back}


def is_clean(figures: dict[str, Any]) -> bool:
    """Say whether nothing failed."""
    return bool(figures["finished"]) and not (
        figures["service"]["failed"]
        or figures["api"]["failed"]
        or figures["version_skew"]["violations"]
        or any(figures["writes"][k] for k in ("failed", "lost", "watch_events_missed"))
    )


def main() -> int:
    """Run the drill; 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("image", "minor"), default="image")
    parser.add_argument("--control-planes", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    nodes = f"{given.control_planes}+{given.workers}"
    workspace = Workspace(folder=Path(tempfile.mkdtemp(prefix="drill-")))
    image = cache_folder() / "image" / f"second-{workspace.folder.name}"
    try:
        create(
            workspace,
            kubernetes=NEWER if given.kind == "image" else OLDER,
            control_planes=given.control_planes,
            workers=given.workers,
        )
        say("cluster is up")
        count = given.control_planes + given.workers
        try:
            figures = drill(workspace, kind=given.kind, nodes=count, image=image)
        finally:
            show(workspace)
    finally:
        shutil.rmtree(image, ignore_errors=True)
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    if gone.returncode == 0:
        shutil.rmtree(workspace.folder)
    text = json.dumps({"nodes": nodes} | figures, indent=1) + "\n"
    (RESULTS / f"drill-upgrade-{given.kind}-{nodes}.json").write_text(text)
    sys.stdout.write(text)
    return 0 if is_clean(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
