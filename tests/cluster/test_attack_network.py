"""Whoever owns the network reads every packet between the nodes: no word of pods is among them.

Directly, in `test_workloads`; here through a Service, while the mesh is down, and from the first
packet of a node that boots. What a machine sends in plain text is found: the capture sees it all.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import eventually
from tests.cluster.machines import inside, is_ready, machine, power
from tests.cluster.web import CANARY
from tests.cluster.wire import captured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ASKED = "asked-3b9f-in-plain-text"
UNASKED = "unasked-51d2-in-plain-text"
"""A name that is asked of a pod's own address: a datagram leaves even where nobody answers."""
PLAIN = "plain-77c1-of-the-machine-itself"
MESH = "constellation-mesh.service"
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
    for word in (CANARY, ASKED, UNASKED):
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


def test_from_a_nodes_first_packet_on_no_word_of_pods_is_on_the_wire(
    web: Workspace, tmp_path: Path
) -> None:
    worker = machine(web, "worker")
    wire = tmp_path / "wire.pcap"
    with captured(web, wire), talking(web, tmp_path) as talk:
        inside(worker.pid, "python3", "-I", "-c", IN_PLAIN_TEXT)
        start = time.monotonic()
        power(web, worker.instance_id, "cycle")
        talk.mark("off")
        # not by the NodePort: what comes from outside reaches a node as it was sent
        assert eventually(lambda: talk.count("yes", since="off") > 3, seconds=120)
        print(f"worker served again after {time.monotonic() - start:.1f} s")  # noqa: T201 - a figure
    nothing_of_pods(wire)
    assert eventually(lambda: is_ready(web, worker.address), seconds=60)
    verified = web.constellation("verify", "-o", "json")
    assert verified.returncode == 0, verified.stderr
