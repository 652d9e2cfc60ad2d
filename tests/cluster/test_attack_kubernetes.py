"""Kubernetes' own ways to what is ours, with an administrator's credentials: none changes anything.

Mirror pods, Services that ask for our ports or for somebody's address, endpoints of our ports.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.providers.local.daemon import kernel
from tests.cluster.conftest import eventually
from tests.cluster.machines import inside, machine
from tests.cluster.test_attack_inside import CONNECT

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

OUR_PORTS = (30080, 30081, 30090, 30091)
SYSTEM = ("-n", "kube-system")
GRACE_S = 5
"""terminationGracePeriodSeconds of our static pods."""


def service_pods(mini: Workspace) -> dict[str, str]:
    """Give the mirror pods of our services on the control plane, and their uids."""
    found = {}
    for pod in mini.objects("pods", *SYSTEM):
        metadata = pod["metadata"]
        assert isinstance(metadata, dict)
        if "kubernetes.io/config.mirror" in metadata.get("annotations", {}):
            found[str(metadata["name"])] = str(metadata["uid"])
    return found


def processes(mini: Workspace) -> dict[str, tuple[int, int]]:
    """Give our services' processes on the control plane: pid, and when it started."""
    network = Path(f"/proc/{machine(mini, 'control-plane').pid}/ns/net").readlink()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            ours = [w for w in words if w.startswith(b"/run/constellation/services/bin/")]
            if ours and (folder / "ns/net").readlink() == network:
                pid = int(folder.name)
                found[ours[0].decode()] = pid, kernel.start_time(pid)
    return found


def test_a_mirror_pod_that_is_edited_or_deleted_changes_nothing(mini: Workspace) -> None:
    before = processes(mini)
    assert len(before) >= 3, before
    name = next(n for n in service_pods(mini) if "joinservice" in n)
    path = machine(mini, "control-plane").pid
    manifests = inside(path, "sh", "-c", "cat /etc/kubernetes/manifests/* | sha256sum")
    edits = (
        ("label", "pod", name, "edited=yes"),
        ("patch", "pod", name, "-p", json.dumps(_image("registry.k8s.io/pause:evil"))),
        ("annotate", "pod", name, "--overwrite", "kubernetes.io/config.hash=00"),
    )
    for edit in edits:
        mini.kubectl(*SYSTEM, *edit)  # the API may take it: it is a copy
    replaced = mini.kubectl(*SYSTEM, "delete", "pod", name, "--force", "--grace-period=0")
    assert replaced.returncode == 0, replaced.stderr
    # kubelet hears of it at once, and a pod of its own had gone after its 5 seconds of grace
    time.sleep(GRACE_S + 4)
    assert processes(mini) == before
    assert inside(path, "sh", "-c", "cat /etc/kubernetes/manifests/* | sha256sum") == manifests
    shown = mini.kubectl(*SYSTEM, "get", "pod", name, "-o", "jsonpath={..image}").stdout
    assert "evil" not in shown


def _image(image: str) -> dict[str, object]:
    return {"spec": {"containers": [{"name": "joinservice", "image": image}]}}


def service(name: str, **spec: object) -> str:
    ports = spec.pop("ports", [{"port": 80}])
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": ports, **spec},
    }
    return json.dumps(body)


@pytest.mark.parametrize("port", OUR_PORTS)
def test_a_service_gets_none_of_our_ports(mini: Workspace, port: int) -> None:
    asked = service(f"takes-{port}", type="NodePort", ports=[{"port": 80, "nodePort": port}])
    refused = mini.kubectl("create", "-f", "-", stdin=asked)
    assert refused.returncode != 0
    assert "not in the valid range" in refused.stderr, refused.stderr


def test_a_service_gets_a_port_of_the_range_and_no_address_of_others(mini: Workspace) -> None:
    allowed = service("allowed", type="NodePort", ports=[{"port": 80, "nodePort": 30999}])
    made = mini.kubectl("create", "-f", "-", stdin=allowed)
    assert made.returncode == 0, made.stderr
    mini.kubectl("delete", "service", "allowed")
    for address in (machine(mini, "control-plane").address, "10.42.0.1", "169.254.169.254"):
        asked = service("external", externalIPs=[address])
        refused = mini.kubectl("create", "-f", "-", stdin=asked)
        assert refused.returncode != 0
        why = "link-local" if address.startswith("169.") else "external IPs"
        assert why in refused.stderr, refused.stderr


def test_endpoints_lead_no_pod_to_our_ports(mini: Workspace) -> None:
    node = machine(mini, "control-plane").address
    asked = {9090: 8001, 9091: 8002, 2379: 8003, 30090: 8004, 30091: 8005, 6443: 8006}
    ports = [{"name": f"p{p}", "port": s, "targetPort": p} for p, s in asked.items()]
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "lead-1", "labels": {"kubernetes.io/service-name": "lead"}},
        "addressType": "IPv4",
        "ports": [{"name": f"p{p}", "port": p} for p in asked],
        "endpoints": [{"addresses": [node], "conditions": {"ready": True}}],
    }
    for body in (service("lead", ports=ports), json.dumps(slices)):
        made = mini.kubectl("create", "-f", "-", stdin=body)
        assert made.returncode == 0, made.stderr
    address = mini.kubectl("get", "service", "lead", "-o", "jsonpath={.spec.clusterIP}").stdout
    pid = _coredns(mini)

    def state(port: int) -> str:
        target = f"{address}:{asked[port]}"
        shown = subprocess.run(
            ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", CONNECT, target],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return shown.stdout.split()[-1]

    assert eventually(lambda: state(6443) == "open", seconds=20), "the control case"
    assert {port for port in asked if state(port) == "open"} == {6443}
    for address in ("169.254.169.254", "127.0.0.1"):
        other = {**slices, "endpoints": [{"addresses": [address]}]}
        refused = mini.kubectl("replace", "-f", "-", stdin=json.dumps(other))
        assert refused.returncode != 0, refused.stdout
    mini.kubectl("delete", "service/lead", "endpointslice/lead-1")


def _coredns(mini: Workspace) -> int:
    """Find a CoreDNS of this cloud: a pod's network."""
    init = machine(mini, "control-plane").pid, machine(mini, "worker").pid
    spaces = {Path(f"/proc/{pid}/ns/cgroup").readlink() for pid in init}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program = (folder / "cmdline").read_bytes().split(b"\0")[0]
            if program.endswith(b"coredns") and (
                mini.uid.encode() in (folder / "cgroup").read_bytes()
                or (folder / "ns/cgroup").readlink() in spaces
            ):
                return int(folder.name)
    raise AssertionError("no CoreDNS runs")
