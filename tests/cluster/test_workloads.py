"""What users run on it: replicas behind a Service and a NodePort, across nodes, encrypted."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.conftest import eventually
from tests.fakes.user_image import write_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.conftest import Workspace

pytestmark = pytest.mark.cluster

IMAGE = "example.test/web:1"
NODE_PORT = 30123
CANARY = "canary-3b9f-in-plain-text"
WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: {IMAGE}
        command: ["/bin/sh", "-c"]
        args:
        - |
          echo {CANARY} > /www/index.html
          dd if=/dev/zero of=/www/big bs=1048576 count=10
          echo serving
          exec httpd -f -p 8080 -h /www
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: far}}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  nodeSelector: {{node-role.kubernetes.io/control-plane: ""}}
  containers:
  - name: far
    image: {IMAGE}
    command: ["/bin/sleep", "3600"]
"""


@pytest.fixture(scope="module")
def web(mini: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give the cluster with three replicas and a pod on the other node."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    archive = tmp_path_factory.mktemp("image") / "web.tar"
    write_archive(archive, reference=IMAGE, busybox=Path(busybox))
    loaded = mini.constellation("mini", "load-image", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    applied = mini.kubectl("apply", "-f", "-", stdin=WEB)
    assert applied.returncode == 0, applied.stderr
    for what in ("deployment/web", "pod/far"):
        kind = "condition=Available" if "deployment" in what else "condition=Ready"
        waited = mini.kubectl("wait", f"--for={kind}", what, "--timeout=90s")
        assert waited.returncode == 0, mini.kubectl("describe", "pods").stdout[-6000:]
    return mini


def _address(workspace: Workspace) -> str:
    config = json.loads(workspace.kubectl("config", "view", "-o", "json").stdout)
    server: str = config["clusters"][0]["cluster"]["server"]
    return server.removeprefix("https://").partition(":")[0]


def _get(host: str, port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _serves(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return CANARY.encode() in _get(host, port, "/index.html")
    return False


def test_a_node_port_answers_on_the_workstation(web: Workspace) -> None:
    assert eventually(lambda: _serves(_address(web), NODE_PORT), seconds=20)


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
            assert eventually(lambda: _serves("127.0.0.1", port), seconds=15)
        finally:
            forward.terminate()


def _network(workspace: Workspace) -> Path:
    """Give the cloud's network namespace, which only its daemon's mount namespace shows."""
    uid = workspace.uid
    found = subprocess.run(
        ["pgrep", "--full", f"providers.local.daemon.main.*{uid}"],
        capture_output=True,
        text=True,
        check=True,
    )
    daemon = found.stdout.split()[0]
    return Path(f"/proc/{daemon}/root/run/netns/constellation-{uid}")


@contextlib.contextmanager
def _captured(workspace: Workspace, file: Path) -> Iterator[None]:
    """Record what crosses the bridge of this cluster's network."""
    inside = ("nsenter", f"--net={_network(workspace)}")
    bridges = subprocess.run(
        [*inside, "ip", "-j", "link", "show", "type", "bridge"],
        capture_output=True,
        text=True,
        check=True,
    )
    bridge = json.loads(bridges.stdout)[0]["ifname"]
    with subprocess.Popen(
        [*inside, "tcpdump", "-i", bridge, "-U", "-s", "0", "-w", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as capture:
        assert capture.stderr is not None
        while "listening on" not in capture.stderr.readline():
            assert capture.poll() is None
        try:
            yield
            time.sleep(0.5)
        finally:
            capture.terminate()


def test_ten_megabytes_cross_nodes_and_nobody_on_the_wire_can_read_them(
    web: Workspace, tmp_path: Path
) -> None:
    pods = web.objects("pods", "-l", "app=web")
    address = str(pods[0]["status"]["podIP"])  # type: ignore[index] # JSON of a pod
    capture = tmp_path / "bridge.pcap"
    with _captured(web, capture):
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


def test_a_rebooted_worker_rejoins_by_itself_with_its_disk(web: Workspace) -> None:
    infrastructure = LocalInfrastructure(web.uid)
    observed = asyncio.run(infrastructure.observe())
    assert observed is not None
    worker = next(i for i in observed.instances if i.role == "worker")

    start = time.monotonic()
    asyncio.run(infrastructure.power(worker.instance_id, "cycle"))
    assert eventually(lambda: _serves(_address(web), NODE_PORT), seconds=90)
    print(f"worker served again after {time.monotonic() - start:.1f} s")  # noqa: T201 - a figure
    verified = web.constellation("verify", "-o", "json")
    assert verified.returncode == 0, verified.stderr
