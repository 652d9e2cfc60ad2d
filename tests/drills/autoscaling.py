"""A client of the cluster-autoscaler's protocol on a real cluster with bounds from `init` on.

    python -m tests.drills.autoscaling [CONTROL_PLANES]

It stands where the autoscaler's pod would: in the network of the control plane's host, with the
files that the operator wrote there. It lets workers grow, lets the first one go, and is shut out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.rpc.stubs import externalgrpc_pb2 as pb
from tests.cluster.conftest import ROOT, Workspace, eventually
from tests.cluster.machines import machine
from tests.drills.loaded import create, say
from tests.drills.whole import show

_SERVICE = "/clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider/"
_CLIENT = "run/constellation/autoscaler/client"
_GROUP = "worker_default"
_BOUNDS = "    autoscaling: {min: 1, max: 3}\n"


def ask(root: Path, call: str, *words: str) -> Any:
    """Make one call, from inside; `root` is the control plane's file system."""
    folder = root / _CLIENT
    settings = json.loads((folder / "cloud-config").read_bytes())
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    )
    requests: dict[str, tuple[Any, Any]] = {
        "NodeGroups": (pb.NodeGroupsRequest(), pb.NodeGroupsResponse),
        "NodeGroupNodes": (pb.NodeGroupNodesRequest(id=_GROUP), pb.NodeGroupNodesResponse),
        "NodeGroupIncreaseSize": (
            pb.NodeGroupIncreaseSizeRequest(id=_GROUP, delta=1),
            pb.NodeGroupIncreaseSizeResponse,
        ),
        "NodeGroupDeleteNodes": (
            pb.NodeGroupDeleteNodesRequest(
                id=_GROUP, nodes=[pb.ExternalGrpcNode(providerID=w) for w in words]
            ),
            pb.NodeGroupDeleteNodesResponse,
        ),
    }
    request, reply = requests[call]
    with grpc.secure_channel(settings["address"], credentials) as channel:
        method = channel.unary_unary(
            _SERVICE + call,
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        return method(request, timeout=10)


class Autoscaler:
    """The client, moved into the control plane's network for each call."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self, call: str, *words: str) -> str:
        """Give the answer as text, or raise with what the client said."""
        within = ("nsenter", "-t", str(self._pid), "-n", sys.executable, "-m", __spec__.name)
        done = subprocess.run(
            [*within, "--ask", str(self._pid), call, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
        if done.returncode != 0:
            raise ConnectionError(done.stderr[-1000:])
        return done.stdout.strip()


def workers(workspace: Workspace) -> dict[str, str]:
    """Give Ready workers' providerID by name."""
    got = workspace.kubectl("get", "nodes", "-o", "json", timeout_s=20)
    return {
        n["metadata"]["name"]: n["spec"].get("providerID", "")
        for n in (json.loads(got.stdout)["items"] if got.returncode == 0 else ())
        if n["metadata"]["name"].startswith("worker")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"]["conditions"])
    }


def off(workspace: Workspace, count: int) -> None:
    """Take the bounds out of the conf, and bring the cluster to it."""
    conf = workspace.folder / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace(_BOUNDS, ""))
    done = workspace.constellation("scale", _GROUP, str(count), timeout_s=300)
    assert done.returncode == 0, done.stderr
    say(done.stdout.strip())


def play(workspace: Workspace) -> None:
    """Find it on, grow, let one go, turn it off."""
    pid = machine(workspace, "control-plane").pid
    client, autoscaler = Path(f"/proc/{pid}/root/{_CLIENT}/cloud-config"), Autoscaler(pid)
    assert eventually(client.exists, seconds=30)
    say(workspace.kubectl("get", "nodegroups", timeout_s=20).stdout)
    say("NodeGroups:", autoscaler("NodeGroups"))
    assert eventually(lambda: all(workers(workspace).values()), seconds=30)
    (first,) = workers(workspace).values()
    started = time.monotonic()
    autoscaler("NodeGroupIncreaseSize")
    assert eventually(lambda: len(workers(workspace)) == 2, seconds=120), workers(workspace)
    say(f"second worker Ready after {time.monotonic() - started:.0f} s")
    assert eventually(lambda: all(workers(workspace).values()), seconds=30)
    say("NodeGroupNodes:", autoscaler("NodeGroupNodes"))
    started = time.monotonic()
    autoscaler("NodeGroupDeleteNodes", first)
    assert eventually(
        lambda: len(workers(workspace)) == 1 and first not in workers(workspace).values(),
        seconds=120,
    ), workers(workspace)
    say(f"{first} gone after {time.monotonic() - started:.0f} s, left: {workers(workspace)}")
    off(workspace, 1)
    assert eventually(lambda: not client.exists(), seconds=30)
    status = workspace.constellation("status")
    say(status.stdout)
    assert status.returncode == 0, status.stdout


def main() -> int:
    """Run it; 0 if all was as expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help="how many control planes")
    given = parser.parse_args()
    if given.ask:
        sys.stdout.write(str(ask(Path(f"/proc/{given.ask}/root"), *given.words)))
        return 0
    workspace = Workspace(folder=Path(tempfile.mkdtemp(prefix="drill-")))
    try:
        create(
            workspace,
            kubernetes=DEFAULT_KUBERNETES_VERSION,
            control_planes=int(given.words[0]) if given.words else 1,
            workers=1,
            of_workers=_BOUNDS,
        )
        try:
            play(workspace)
        except BaseException:
            show(workspace)
            raise
    finally:
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    shutil.rmtree(workspace.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
