"""Whoever owns the network reads every packet between the nodes: no word of pods is among them.

Directly, in `test_workloads`; here through a Service, while the mesh is down, and from the first
packet of a node that boots, whose pods run before its mesh does. What a machine sends in plain text
is found: the capture sees it all.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import eventually
from tests.cluster.machines import inside, is_ready, machine, machine_by_id, power
from tests.cluster.web import CANARY, IMAGE
from tests.cluster.wire import captured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ASKED = "asked-3b9f-in-plain-text"
UNASKED = "unasked-51d2-in-plain-text"
"""A name that is asked of a pod's own address: a datagram leaves even where nobody answers."""
NEAR = "near-90ab-in-plain-text"
"""The same, of a pod on the node that boots."""
PLAIN = "plain-77c1-of-the-machine-itself"
MESH = "constellation-mesh.service"
MESH_KEY = "/var/lib/constellation/keys/mesh.key"
TALK = f"""
i=0
while [ $i -lt 3000 ]; do
  i=$((i + 1))
  busybox timeout 1 nslookup {UNASKED} $0 >/dev/null
  page=$(busybox timeout 2 wget -q -O - 'http://web.default.svc.cluster.local/index.html?{ASKED}')
  case "$page" in
    *{CANARY}*) echo yes ;;
    *) echo no; sleep 0.1 ;;
  esac
done
"""
IN_PLAIN_TEXT = f"""
import urllib.request
try: urllib.request.urlopen("http://169.254.169.254/{PLAIN}", timeout=5)
except OSError as error: print(error)
"""


@dataclass(slots=True)
class Talk:
    """A pod on one node that asks a Service, whose pods are on the other, without a pause."""

    answers: Path
    marks: dict[str, int] = field(default_factory=dict)

    def count(self, word: str, *, since: str = "") -> int:
        """Count answers, from a mark on."""
        return self.answers.read_text().split()[self.marks.get(since, 0) :].count(word)

    def mark(self, name: str) -> None:
        self.marks[name] = len(self.answers.read_text().split())


@contextlib.contextmanager
def talking(web: Workspace, folder: Path) -> Iterator[Talk]:
    talk = Talk(answers=folder / "answers")
    kubeconfig = web.folder / "constellation-admin.conf"
    with (
        talk.answers.open("w") as out,
        subprocess.Popen(
            [
                *(str(web.folder / "kubectl"), f"--kubeconfig={kubeconfig}"),
                *("exec", "far", "--", "sh", "-c", TALK, _pod_address(web)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            assert eventually(lambda: talk.count("yes") > 0, seconds=30)
            yield talk
        finally:
            process.kill()


def _pod_address(web: Workspace) -> str:
    pods = web.objects("pods", "-l", "app=web")
    return str(pods[0]["status"]["podIP"])  # type: ignore[index] # JSON of a pod


def nothing_of_pods(wire: Path) -> None:
    data = wire.read_bytes()
    assert PLAIN.encode() in data, "the control case: the capture sees what is not encrypted"
    for word in (CANARY, ASKED, UNASKED, NEAR):
        assert word.encode() not in data


def _without_mesh(node: pb.Node, talk: Talk) -> None:
    """Stop a node's mesh and take its link away, look for 3 s, and start it again."""
    inside(node.pid, "systemctl", "stop", MESH)
    try:
        inside(node.pid, "ip", "link", "delete", "wg0")
        time.sleep(0.2)  # what was answered before is on its way
        talk.mark("down")
        time.sleep(3)
        assert talk.count("yes", since="down") == 0, "there is no other way"
    finally:
        inside(node.pid, "systemctl", "start", MESH)


def test_while_the_mesh_is_down_and_comes_back_no_word_of_pods_is_on_the_wire(
    web: Workspace, tmp_path: Path
) -> None:
    far, near = machine(web, "control-plane"), machine(web, "worker")
    wire = tmp_path / "wire.pcap"
    with captured(web, wire), talking(web, tmp_path) as talk:
        inside(near.pid, "python3", "-I", "-c", IN_PLAIN_TEXT)
        for node in (near, far):
            _without_mesh(node, talk)
            talk.mark("back")
            assert eventually(lambda: talk.count("yes", since="back") > 3, seconds=60)
    nothing_of_pods(wire)


@contextlib.contextmanager
def asking_pod(web: Workspace, node: pb.Node) -> Iterator[None]:
    """Run a pod on a node that asks a pod of another for a name, from its start without a pause."""
    target = next(p for p in web.objects("pods") if _metadata(p)["name"] == "far")
    address = str(target["status"]["podIP"])  # type: ignore[index] # JSON of a pod
    script = f"while true; do busybox timeout 1 nslookup {NEAR} {address} >/dev/null; done"
    container = {"name": "near", "image": IMAGE, "command": ["/bin/sh", "-c", script]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "near"},
        "spec": {
            "nodeName": _node_name(web, node),
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }
    made = web.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    assert made.returncode == 0, made.stderr
    try:
        assert eventually(_asks, seconds=30)
        yield
    finally:
        web.kubectl("delete", "pod", "near", "--force", "--grace-period=0")


def _asks() -> bool:
    """Say whether the pod's process runs: no other on this machine has this word."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if NEAR.encode() in line.read_bytes():
                return True
    return False


def _node_name(web: Workspace, node: pb.Node) -> str:
    return next(
        str(_metadata(n)["name"])
        for n in web.objects("nodes")
        if any(a["address"] == node.address for a in n["status"]["addresses"])  # type: ignore[index] # JSON of a node
    )


def _metadata(thing: dict[str, object]) -> dict[str, object]:
    found = thing["metadata"]
    assert isinstance(found, dict)
    return found


def test_from_a_nodes_first_packet_on_no_word_of_pods_is_on_the_wire(
    web: Workspace, tmp_path: Path
) -> None:
    worker = machine(web, "worker")
    wire = tmp_path / "wire.pcap"
    with asking_pod(web, worker), captured(web, wire), talking(web, tmp_path) as talk:
        inside(worker.pid, "python3", "-I", "-c", IN_PLAIN_TEXT)
        # without its key the mesh does not start: the node's pods run long before it
        inside(worker.pid, "mv", MESH_KEY, f"{MESH_KEY}.kept")
        power(web, worker.instance_id, "cycle")

        def now() -> pb.Node:
            return machine_by_id(web, worker.instance_id)

        try:
            assert eventually(lambda: now().pid != worker.pid and _asks(), seconds=90)
            time.sleep(3)
            assert "does not exist" in inside(now().pid, "ip", "link", "show", "wg0")
        finally:
            inside(now().pid, "mv", f"{MESH_KEY}.kept", MESH_KEY)
        talk.mark("off")
        # not by the NodePort: what comes from outside reaches a node as it was sent
        assert eventually(lambda: talk.count("yes", since="off") > 3, seconds=60)
    nothing_of_pods(wire)
    assert eventually(lambda: is_ready(web, worker.address), seconds=60)
    verified = web.constellation("verify", "-o", "json")
    assert verified.returncode == 0, verified.stderr
