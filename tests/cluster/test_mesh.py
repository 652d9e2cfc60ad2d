"""Two nodes, a pod on each, real WireGuard between them: in network namespaces of this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from constellation.base import decode
from constellation.kube.peers import Peer, SignedPeers
from constellation.kube.pod_gate import closed
from constellation.services.mesh.firewall import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster

CANARY = b"canary-7f3a9d-in-plain-text"
SOURCES = str(Path(__file__).parents[2] / "src")


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    if check and done.returncode:
        raise AssertionError(f"{argv}: {done.stderr}")
    return done.stdout


def inside(space: str, *argv: str, check: bool = True) -> str:
    return run("ip", "netns", "exec", space, *argv, check=check)


class Node:
    def __init__(self, index: int, folder: Path) -> None:
        self.index = index
        self.space, self.pod = f"cmesh-n{index}", f"cmesh-p{index}"
        self.address, self.pod_address = f"10.99.0.{index + 1}", f"10.244.{index}.2"
        private = X25519PrivateKey.generate()
        self.public = private.public_key().public_bytes_raw()
        self.place = Place(
            address=self.address,
            mesh_address=f"10.43.0.{index + 1}",
            pod_cidr=f"10.244.{index}.0/24",
            pod_network="10.244.0.0/16",
            mesh_cidr="10.43.0.0/16",
        )
        (folder / f"place{index}").write_bytes(decode.dump(self.place))
        (folder / f"key{index}").write_bytes(private.private_bytes_raw())
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    @property
    def peer(self) -> Peer:
        return Peer(
            node_name=self.space,
            address=self.address,
            mesh_public_key=self.public,
            mesh_address=self.place.mesh_address,
            pod_cidr=self.place.pod_cidr,
            role="worker",
        )

    def add_pod(self) -> None:
        gateway = f"10.244.{self.index}.1"
        run("ip", "netns", "add", self.pod)
        link = ("ip", "-n", self.space, "link")
        run(*link, "add", "vethpod", "type", "veth", "peer", "name", "eth0", "netns", self.pod)
        run("ip", "-n", self.space, "addr", "add", f"{gateway}/32", "dev", "vethpod")
        run(*link, "set", "vethpod", "up")
        run("ip", "-n", self.space, "route", "add", f"{self.pod_address}/32", "dev", "vethpod")
        run("ip", "-n", self.pod, "addr", "add", f"{self.pod_address}/32", "dev", "eth0")
        run("ip", "-n", self.pod, "link", "set", "eth0", "up")
        run("ip", "-n", self.pod, "route", "add", gateway, "dev", "eth0")
        run("ip", "-n", self.pod, "route", "add", "default", "via", gateway)
        inside(self.space, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")

    def start_mesh(self) -> None:
        """In its own mount and process namespaces: one socket folder, and nothing outlives it."""
        script = 'mount -t tmpfs none /run && mkdir /run/wireguard && exec "$@"'
        self.process = subprocess.Popen(
            [
                *("ip", "netns", "exec", self.space),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("sh", "-c", script, "sh", sys.executable),
                str(Path(__file__).parent / "mesh_node.py"),
                str(self.folder / f"place{self.index}"),
                str(self.folder / f"key{self.index}"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": SOURCES},
        )
        self.expect("up")

    def apply(self, *peers: Peer) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        listed = SignedPeers(serial=1, peers=peers, signature=b"")
        self.process.stdin.write(decode.dump(listed).decode() + "\n")
        self.process.stdin.flush()
        self.expect("applied")

    def expect(self, word: str) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def remove(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
            self.process.wait()
        for space in (self.pod, self.space):
            run("ip", "netns", "delete", space, check=False)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    one, two = Node(0, tmp_path), Node(1, tmp_path)
    try:
        for node in (one, two):
            run("ip", "netns", "add", node.space)
            run("ip", "-n", node.space, "link", "set", "lo", "up")
        run(
            *("ip", "-n", one.space, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", "eth0", "netns", two.space),
        )
        for node in (one, two):
            run("ip", "-n", node.space, "addr", "add", f"{node.address}/24", "dev", "eth0")
            run("ip", "-n", node.space, "link", "set", "eth0", "up")
            node.add_pod()
            node.start_mesh()
        yield one, two
    finally:
        one.remove()
        two.remove()


LISTEN = """
import socket, sys
s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(c.recv(100))
    c.close()
"""
ASK = """
import socket, sys
s = socket.create_connection(
    (sys.argv[1], int(sys.argv[2])), timeout=2, source_address=(sys.argv[4], 0)
)
s.sendall(sys.argv[3].encode())
sys.exit(0 if s.recv(100) == sys.argv[3].encode() else 1)
"""


@contextlib.contextmanager
def listening(space: str, port: int) -> Iterator[None]:
    with subprocess.Popen(
        ["ip", "netns", "exec", space, sys.executable, "-c", LISTEN, str(port)],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def answers(space: str, address: str, port: int, *, source: str = "") -> bool:
    done = subprocess.run(
        [
            *("ip", "netns", "exec", space, sys.executable, "-c", ASK),
            *(address, str(port), CANARY.decode(), source),
        ],
        check=False,
        capture_output=True,
        timeout=30,
    )
    return done.returncode == 0


@contextlib.contextmanager
def captured(space: str, file: Path, *, device: str = "eth0") -> Iterator[None]:
    with subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            space,
            "tcpdump",
            "--immediate-mode",
            "-i",
            device,
            "-U",
            "-w",
            str(file),
        ],
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        while b"listening on" not in process.stderr.readline():
            pass
        try:
            yield
        finally:
            time.sleep(0.3)
            process.terminate()
            process.stderr.read()


def meet(one: Node, two: Node) -> None:
    one.apply(two.peer)
    two.apply(one.peer)


def test_pods_reach_each_other_and_nothing_is_readable_between_the_nodes(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    one, two = nodes
    capture = tmp_path / "capture"
    with captured(one.space, capture), listening(two.pod, 8080):
        assert not answers(one.pod, two.pod_address, 8080), "no peers yet"
        meet(one, two)
        assert answers(one.pod, two.pod_address, 8080)
        assert answers(one.space, two.pod_address, 8080), "a node to a pod of another"
    seen = capture.read_bytes()
    assert CANARY not in seen
    assert (51820).to_bytes(2, "big") in seen, "the capture saw the mesh"
    assert bytes([10, 244, 1, 2]) not in seen, "no pod address on the wire"


def test_a_pod_reaches_nodes_on_two_ports_only(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    meet(one, two)
    for target in (one, two):
        for port, open_ in ((6443, True), (10250, True), (2379, False), (9090, False)):
            with listening(target.space, port):
                assert answers(one.pod, target.address, port) is open_, (target.index, port)
        with listening(target.space, 6443):
            assert not answers(one.pod, target.place.mesh_address, 2379)


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16"])
def test_a_pod_reaches_no_metadata_service_and_its_node_does(
    nodes: tuple[Node, Node], address: str
) -> None:
    one, two = nodes
    meet(one, two)
    # the provider's address answers on the nodes' network, as a cloud's does
    inside(two.space, "ip", "address", "add", f"{address}/32", "dev", "eth0")
    inside(one.space, "ip", "route", "add", f"{address}/32", "dev", "eth0")
    for port in (80, 32526):  # the second is the wire server's for agents, on Azure
        with listening(two.space, port):
            assert answers(one.space, address, port)
            assert not answers(one.pod, address, port)


def test_pod_traffic_outside_the_mesh_is_dropped_at_both_ends(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    one, two = nodes
    meet(one, two)
    with listening(two.pod, 8080):
        assert answers(one.pod, two.pod_address, 8080)
        # a node that was led astray: its own filter holds the packet back
        route = ("ip", "-n", one.space, "route", "replace", two.place.pod_cidr, "via", two.address)
        run(*route, "dev", "eth0")
        capture = tmp_path / "capture"
        with captured(one.space, capture):
            assert not answers(one.pod, two.pod_address, 8080)
        assert bytes([10, 244, 1, 2]) not in capture.read_bytes()
        # a node without a filter: the other end does not take it
        inside(one.space, "nft", "delete", "table", "inet", "constellation")
        with captured(two.space, capture):
            assert not answers(one.pod, two.pod_address, 8080)
        assert bytes([10, 244, 1, 2]) in capture.read_bytes(), "it did arrive at the link"


def test_a_removed_peer_is_cut_off(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    meet(one, two)
    with listening(two.pod, 8080):
        assert answers(one.pod, two.pod_address, 8080)
        two.apply()
        assert not answers(one.pod, two.pod_address, 8080)


def test_a_pod_does_not_take_another_pods_address(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    one, two = nodes
    meet(one, two)
    run("ip", "-n", one.pod, "addr", "add", "10.244.7.7/32", "dev", "eth0")
    capture, target = tmp_path / "capture", bytes([10, 244, 1, 2])
    for filtered in (True, False):
        if not filtered:
            inside(one.space, "nft", "flush", "chain", "inet", "constellation", "arriving")
        with captured(one.space, capture, device="wg0"):
            assert not answers(one.pod, two.pod_address, 8080, source="10.244.7.7")
        assert (target in capture.read_bytes()) is not filtered


def test_before_the_mesh_runs_no_pod_packet_leaves_its_node(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    # a node between kubelet's start and the mesh's: no wg0, and routers that take every packet
    one, two = nodes
    for node, other in ((one, two), (two, one)):
        inside(node.space, "nft", "delete", "table", "inet", "constellation")
        route = ("ip", "-n", node.space, "route", "replace", other.place.pod_cidr)
        run(*route, "via", other.address, "dev", "eth0")
    capture = tmp_path / "capture"
    with listening(two.pod, 8080), listening(two.space, 2379), listening(one.space, 9000):
        assert answers(one.pod, two.pod_address, 8080), "without the gate it is all open"
        assert answers(one.pod, one.address, 9000)
        gate = tmp_path / "gate"
        gate.write_text(closed(one.place.pod_network))
        inside(one.space, "nft", "-f", str(gate))
        with captured(one.space, capture):
            assert not answers(one.pod, two.pod_address, 8080)
            assert not answers(one.pod, two.address, 2379)
            assert not answers(one.pod, one.address, 9000)
            assert not answers(one.space, two.pod_address, 8080), "nor the node itself in the clear"
        assert CANARY not in capture.read_bytes()
        with listening(one.space, 6443):
            assert answers(one.pod, one.address, 6443)
    meet(one, two)
    with listening(two.pod, 8080):
        assert answers(one.pod, two.pod_address, 8080), "the mesh's rules replaced the gate"


def test_services_on_loopback_are_not_reached_from_the_network(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    meet(one, two)
    hidden = "127.7.7.7"
    # somebody who owns the network sends to 127.0.0.0/8; a sysctl lets the kernel take it
    for space in (one.space, two.space):
        for name in ("all", "eth0"):
            inside(space, "sysctl", "-q", "-w", f"net.ipv4.conf.{name}.route_localnet=1")
    local = ("table", "local")
    run("ip", "-n", one.space, "route", "del", "local", "127.0.0.0/8", "dev", "lo", *local)
    run("ip", "-n", one.space, "route", "add", hidden, "via", two.address, "dev", "eth0")
    with listening(two.space, 10249):
        assert answers(one.space, two.address, 10249)
        assert not answers(one.space, hidden, 10249)
