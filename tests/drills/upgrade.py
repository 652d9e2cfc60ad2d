"""The upgrade drills: new nodes under load, every failed request counted (root).

    make drill-upgrade                         a new image, 3+2 nodes, results in bench/results
    make drill-upgrade KIND=minor              Kubernetes' next minor version, then its next patch
    make drill-upgrade KIND=back               two ways back from the midst of a roll-out
    python -m tests.drills.upgrade --kind minor --control-planes 1 --workers 1

`image` puts the policy onto the control planes' disks and watches the operator alone. The others go
the whole way, by published releases and `upgrade apply`. `minor`: a cluster of the oldest
Kubernetes comes to the next minor version and a new image, then to the next patch version, after
which `upgrade rollback` must be refused. `back`: a release whose image no JoinService lets in stops
the roll-out, and `upgrade rollback` leads back; then `upgrade apply` of a good one is interrupted
when the first node has been replaced, and `upgrade rollback` leads back again.

Load, from before the first step of each roll-out until after its last: a Service of 3 replicas
(preStop sleep, disruption budget) at 50 requests a second through the load balancer on fresh
connections; the API at 20 reads a second, half on fresh and half on kept HTTP/2 connections; 5
acknowledged writes a second, and a watch of them held open. Failed: refused, reset, over 5 s, 429
or 5xx, each without a second try; a write that is lost; a watch event that is missed; a look at the
versions that finds a kubelet newer than an API server, or API servers more than one minor version
apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.config.workspace import cache_folder
from constellation.config.writer import set_fields
from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.new_image import give_image
from tests.cluster.probes import ApiProbe, ServiceProbe, WriteProbe
from tests.cluster.second_release import publish_next, publish_second
from tests.drills.loaded import NODE_PORT, RESULTS, create, deploy, say
from tests.drills.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable

WITHIN_S = 900
OLDEST, OLDER, NEWER = "v1.35.3", "v1.36.1", "v1.36.2"
CONFLICT, INTERRUPTED = 7, 130
FIRST_OF = {"image": NEWER, "minor": OLDEST, "back": NEWER}
"""The Kubernetes that each kind begins with."""


class Machines:
    """When each machine came and went, by the provider."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._came: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self._first: set[str] | None = None

    def look(self) -> None:
        now = time.monotonic()
        there = present(self._workspace)
        if self._first is None:
            self._first = there
        for machine in there - self._first:
            self._came.setdefault(machine, now)
        for machine in self._first - there:
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
    name(workspace, release=release, kubernetes=kubernetes)
    done = workspace.constellation("upgrade", "apply", timeout_s=WITHIN_S)
    say("upgrade apply", release, kubernetes, done.returncode, done.stdout, done.stderr[-1500:])
    return done.returncode == 0


def name(workspace: Workspace, *, release: str, kubernetes: str) -> None:
    """Write into the configuration where to go."""
    conf = workspace.folder / "constellation-conf.yaml"
    fields = {"release": release, "kubernetesVersion": kubernetes}
    conf.write_text(set_fields(conf.read_text(), fields))


def publish(workspace: Workspace, folder: Path, *, kubernetes: str) -> tuple[str, str]:
    """Have two releases, and the cluster follow the first; gives both."""
    checked = workspace.constellation("upgrade", "check", timeout_s=300)
    assert checked.returncode == 0, checked.stderr
    first, second = publish_second(workspace, folder)
    assert follow(workspace, release=first, kubernetes=kubernetes)
    return first, second


def rolled_back(workspace: Workspace, *, to: str) -> bool:
    """Go back to a release; says whether all of it is there again."""
    done = workspace.constellation("upgrade", "rollback", timeout_s=WITHIN_S)
    say("upgrade rollback", done.returncode, done.stdout, done.stderr[-1500:])
    verified = workspace.constellation("verify")
    return done.returncode == 0 and f"runs release {to} " in done.stdout and not verified.returncode


def refused_way_back(workspace: Workspace) -> str:
    """Give what `upgrade rollback` says; it must change nothing."""
    before = (workspace.folder / "constellation-state.yaml").read_bytes()
    done = workspace.constellation("upgrade", "rollback", timeout_s=300)
    assert done.returncode == CONFLICT, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert (workspace.folder / "constellation-state.yaml").read_bytes() == before
    return done.stderr.strip()


def stopped_and_back(workspace: Workspace, *, wrong: str, first: str) -> bool:
    """Go to a release whose nodes are refused: it must stop and say so, and the way back lead back.

    Nothing that works may be given up for it.
    """
    before = present(workspace)
    name(workspace, release=wrong, kubernetes=NEWER)
    done = workspace.constellation("upgrade", "apply", timeout_s=WITHIN_S)
    say("upgrade apply", wrong, done.returncode, done.stdout, done.stderr[-1500:])
    assert done.returncode == CONFLICT
    assert "the roll-out has stopped" in done.stderr
    assert before <= present(workspace)
    return rolled_back(workspace, to=first) and present(workspace) == before


def interrupted_and_back(workspace: Workspace, *, release: str, first: str) -> bool:
    """Interrupt `upgrade apply` when the first node has been replaced, and go back."""
    before = present(workspace)
    name(workspace, release=release, kubernetes=NEWER)
    with workspace.begin("upgrade", "apply", limit_s=2 * WITHIN_S) as going:
        assert eventually(lambda: not before <= present(workspace), seconds=WITHIN_S)
        going.send_signal(signal.SIGINT)
        assert going.wait(timeout=30) == INTERRUPTED
    replaced = before - present(workspace)
    say("interrupted; replaced so far:", *replaced)
    return rolled_back(workspace, to=first) and bool(replaced)


def present(workspace: Workspace) -> set[str]:
    """Give the instance ids of all machines."""
    return {m.instance_id for m in asyncio.run(LocalInfrastructure(workspace.uid).nodes())}


def roll(workspace: Workspace, what: str, go: Callable[[], bool]) -> dict[str, Any]:
    """Roll out under load; gives the figures."""
    say("load begins:", what)
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
    figures = {
        "what": what,
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
    say(json.dumps(figures))
    return figures


def show(workspace: Workspace) -> None:
    """Write what the operators and the release say to standard error."""
    say(workspace.kubectl("get", "clusterrelease", "cluster", "-o", "yaml").stdout)
    pods = workspace.kubectl("get", "pods", "-n", "kube-system", "-o", "name").stdout.split()
    for pod in (p for p in pods if "constellation-operator" in p):
        say(pod, workspace.kubectl("logs", "-n", "kube-system", pod, "--tail=200").stdout)


def drill(
    workspace: Workspace, *, kind: str, nodes: int, images: tuple[Path, Path]
) -> dict[str, Any]:
    """Run the roll-outs of this kind; `images`: folders for those of later releases."""
    deploy(workspace)
    if kind == "image":
        figures = [roll(workspace, "image", lambda: new_image(workspace, nodes=nodes))]
        return {"roll_outs": figures}
    if kind == "back":
        return {"roll_outs": _back(workspace, images)}
    return _minor(workspace, images)


def _minor(workspace: Workspace, images: tuple[Path, Path]) -> dict[str, Any]:
    # a release published here has the versions that this machine has
    for version in (OLDER, NEWER):
        had = workspace.constellation(
            "artifacts", "mirror", "--kubernetes", version, timeout_s=3600
        )
        assert had.returncode == 0, had.stderr
    release = publish(workspace, images[0], kubernetes=OLDEST)[1]
    figures: list[dict[str, Any]] = []
    for what, version in ((f"{OLDEST} to {OLDER}, and image", OLDER), (f"to {NEWER}", NEWER)):
        go = partial(follow, workspace, release=release, kubernetes=version)
        figures.append(roll(workspace, what, go))
        if not figures[-1]["finished"]:
            return {"roll_outs": figures}
    return {"roll_outs": figures, "rollback": refused_way_back(workspace)}


def _back(workspace: Workspace, images: tuple[Path, Path]) -> list[dict[str, Any]]:
    first, good = publish(workspace, images[0], kubernetes=NEWER)
    figures = [
        roll(
            workspace,
            "interrupted when one node was replaced, and back",
            lambda: interrupted_and_back(workspace, release=good, first=first),
        )
    ]
    _, wrong = publish_next(workspace, images[1], genuine=False)
    refused = partial(stopped_and_back, workspace, wrong=wrong, first=first)
    return [*figures, roll(workspace, "an image that nobody lets in, and back", refused)]


def is_clean(figures: dict[str, Any]) -> bool:
    """Say whether a roll-out finished and nothing failed."""
    return bool(figures["finished"]) and not (
        figures["service"]["failed"]
        or figures["api"]["failed"]
        or figures["version_skew"]["violations"]
        or any(figures["writes"][k] for k in ("failed", "lost", "watch_events_missed"))
    )


def main() -> int:
    """Run the drill; 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=tuple(FIRST_OF), default="image")
    parser.add_argument("--control-planes", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    nodes = f"{given.control_planes}+{given.workers}"
    workspace = Workspace(folder=Path(tempfile.mkdtemp(prefix="drill-")))
    cached = cache_folder() / "image"
    second, third = (cached / f"{n}-{workspace.folder.name}" for n in ("second", "third"))
    try:
        create(
            workspace,
            kubernetes=FIRST_OF[given.kind],
            control_planes=given.control_planes,
            workers=given.workers,
        )
        say("cluster is up")
        count = given.control_planes + given.workers
        try:
            figures = drill(workspace, kind=given.kind, nodes=count, images=(second, third))
        finally:
            show(workspace)
    finally:
        for folder in (second, third):
            shutil.rmtree(folder, ignore_errors=True)
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    if gone.returncode == 0:
        shutil.rmtree(workspace.folder)
    text = json.dumps({"nodes": nodes} | figures, indent=1) + "\n"
    (RESULTS / f"drill-upgrade-{given.kind}-{nodes}.json").write_text(text)
    sys.stdout.write(text)
    return 0 if all(map(is_clean, figures["roll_outs"])) else 1


if __name__ == "__main__":
    sys.exit(main())
