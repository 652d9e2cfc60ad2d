"""What users run on it: replicas behind a Service and a NodePort, across nodes, encrypted."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import eventually
from tests.cluster.web import CANARY, IMAGE, NODE_PORT, address_of, serves
from tests.cluster.wire import captured

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.conftest import Workspace

pytestmark = pytest.mark.cluster


def test_a_node_port_answers_on_the_workstation(web: Workspace) -> None:
    assert eventually(lambda: serves(address_of(web), NODE_PORT), seconds=20)


def test_exec_logs_and_names_work(web: Workspace) -> None:
    logs = web.kubectl("logs", "deployment/web")
    assert "serving" in logs.stdout, logs.stderr
    found = web.kubectl("exec", "far", "--", "nslookup", "web.default.svc.cluster.local")
    assert found.returncode == 0, found.stdout + found.stderr


def test_port_forward_works(web: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kubeconfig = web.folder / "constellation-admin.conf"
    with subprocess.Popen(
        [
            str(web.folder / "kubectl"),
            f"--kubeconfig={kubeconfig}",
            "port-forward",
            "deployment/web",
            f"{port}:8080",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as forward:
        try:
            assert eventually(lambda: serves("127.0.0.1", port), seconds=15)
        finally:
            forward.terminate()


def test_ten_megabytes_cross_nodes_and_nobody_on_the_wire_can_read_them(
    web: Workspace, tmp_path: Path
) -> None:
    pods = web.objects("pods", "-l", "app=web")
    address = str(pods[0]["status"]["podIP"])  # type: ignore[index] # JSON of a pod
    capture = tmp_path / "bridge.pcap"
    with captured(web, capture):
        big = web.kubectl(
            "exec", "far", "--", "sh", "-c", f"wget -q -O - {address}:8080/big | wc -c"
        )
        assert big.stdout.strip() == str(10 * 1024 * 1024), big.stderr
        for target in (f"{address}:8080", "web.default.svc.cluster.local"):
            page = web.kubectl("exec", "far", "--", "wget", "-q", "-O", "-", f"http://{target}/")
            assert CANARY in page.stdout, page.stderr
    wire = capture.read_bytes()
    assert len(wire) > 10 * 1024 * 1024
    assert CANARY.encode() not in wire
    assert bytes(64 * 1024) not in wire


def test_privileged_pods_are_refused_in_users_namespaces(web: Workspace) -> None:
    refused = web.kubectl(
        *("run", "root", f"--image={IMAGE}", "--privileged", "--restart=Never"),
        *("--command", "--", "sleep", "1"),
    )
    assert refused.returncode != 0
    assert "PodSecurity" in refused.stderr
