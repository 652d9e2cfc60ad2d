"""What a user runs: three replicas behind a Service and a NodePort, and a pod on the other node."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.user_image import write_archive

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = ["CANARY", "IMAGE", "NODE_PORT", "address_of", "deploy", "serves"]

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


def deploy(workspace: Workspace, folder: Path) -> None:
    """Load the image and wait until all of it runs."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    archive = folder / "web.tar"
    write_archive(archive, reference=IMAGE, busybox=Path(busybox))
    loaded = workspace.constellation("mini", "load-image", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    applied = workspace.kubectl("apply", "-f", "-", stdin=WEB)
    assert applied.returncode == 0, applied.stderr
    for what in ("deployment/web", "pod/far"):
        kind = "condition=Available" if "deployment" in what else "condition=Ready"
        waited = workspace.kubectl("wait", f"--for={kind}", what, "--timeout=90s")
        assert waited.returncode == 0, workspace.kubectl("describe", "pods").stdout[-6000:]


def address_of(workspace: Workspace) -> str:
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


def serves(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return CANARY.encode() in _get(host, port, "/index.html")
    return False
