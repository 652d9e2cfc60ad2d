"""The identities inside a running cluster: what each program of ours holds, and that it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.providers.local.infrastructure import LocalInfrastructure

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = pytest.mark.cluster

BUNDLE = "/run/constellation/services/bin"
DOORS = {
    "joinservice": "joinservice\njoinservice/agent.sock\n",
    "verificationservice": "verification\nverification/agent.sock\n",
    "operator": "",
}


def node_pid(mini: Workspace, group: str) -> int:
    """Give the process id of a node's init."""
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    return next(int(n.pid) for n in nodes if group in n.instance_id)


def enter(pid: int, *argv: str) -> str:
    """Run `nsenter` for a process with these arguments."""
    done = subprocess.run(
        ["nsenter", "-t", str(pid), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def in_pod(mini: Workspace, service: str, script: str) -> str:
    """Run a shell script in the mounts of a static pod of the control plane."""
    network = Path(f"/proc/{node_pid(mini, 'control')}/ns/net").readlink()
    wanted = b"\0".join((b"/usr/bin/python3", b"-ISB", f"{BUNDLE}/{service}".encode(), b""))
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == wanted and (
                (folder / "ns/net").readlink() == network
            ):
                return enter(int(folder.name), "-m", "/usr/bin/sh", "-c", script)
    raise AssertionError(f"{service} does not run")


@pytest.mark.parametrize("service", DOORS)
def test_each_pod_sees_its_own_door_of_the_agent_alone(mini: Workspace, service: str) -> None:
    script = "test -d /run/constellation/agent && cd /run/constellation/agent && find * | sort"
    shown = in_pod(mini, service, script)
    assert shown == DOORS[service]
    every = enter(node_pid(mini, "control"), "-a", "ls", "/run/constellation/agent").split()
    assert {"bootstrapper", "diskmapper", "joinservice", "verification"} <= set(every)


HOST_FILES = "/etc/kubernetes/admin.conf /etc/kubernetes/super-admin.conf"
KEYS = "/etc/kubernetes/pki/ca.key /var/lib/constellation/keys/join.pem"


def test_no_pod_sees_the_administrator_s_kubeconfig_nor_the_operator_any_key(
    mini: Workspace,
) -> None:
    shown = enter(node_pid(mini, "control"), "-a", "ls", *HOST_FILES.split(), *KEYS.split())
    assert "No such file" not in shown, "the control case"
    for service in DOORS:
        seen = in_pod(mini, service, f"ls {HOST_FILES} 2>/dev/null; true")
        assert seen == "", service
    assert in_pod(mini, "operator", f"ls {KEYS} 2>/dev/null; true") == ""
    assert len(in_pod(mini, "joinservice", f"ls {KEYS}").split()) == 2


MAY = {
    ("joinservice", "get", "joinrecords.constellation.internal"): True,
    ("joinservice", "list", "nodes"): True,
    ("joinservice", "delete", "nodes"): False,
    ("joinservice", "get", "secrets"): False,
    ("joinservice", "create", "clusterrolebindings"): False,
    ("operator", "delete", "nodes"): True,
    ("operator", "create", "joinrecords.constellation.internal"): False,
    ("operator", "get", "secrets"): False,
    ("operator", "create", "pods"): False,
    ("operator", "create", "pods/exec"): False,
    ("operator", "escalate", "clusterroles"): False,
}


def test_services_have_their_own_small_rights(mini: Workspace) -> None:
    for (service, verb, resource), allowed in MAY.items():
        group = f"constellation:{service}"
        who = (f"--as={group}:control-plane-default-0", f"--as-group={group}")
        words = ("auth", "can-i", verb, resource, "--all-namespaces", *who)
        said = mini.kubectl(*words).stdout.strip()
        assert said == ("yes" if allowed else "no"), (service, verb, resource)
    for service in ("joinservice", "operator"):
        pod = f"constellation-{service}-control-plane-default-0"
        log = mini.kubectl("-n", "kube-system", "logs", pod)
        assert log.returncode == 0, log.stderr
        assert "cannot" not in log.stdout, log.stdout
        assert "Forbidden" not in log.stdout
    lease = mini.kubectl("-n", "kube-system", "get", "lease", "constellation-operator")
    assert lease.returncode == 0, "the operator has written with its own identity"


ASK_HTTP = """
import json, secrets, sys, urllib.request
url = f"http://{sys.argv[1]}:30080/v1/evidence?nonce={secrets.token_hex(32)}"
found = json.load(urllib.request.urlopen(url, timeout=20))
print(found["node_name"], found["variant"], found["batch"]["size"], len(found["evidence"]) > 1000)
"""


def test_every_node_gives_evidence_over_http_and_verify_takes_batches(mini: Workspace) -> None:
    nodes = asyncio.run(LocalInfrastructure(mini.uid).nodes())
    network = ("-n", sys.executable, "-c", ASK_HTTP)
    for node in nodes:
        said = enter(node_pid(mini, "control"), *network, node.address).split()
        assert said[0].removesuffix("-0") in ("control-plane-default", "worker-default")
        assert said[1:] == ["local-vtpm", "1", "True"]
    verified = mini.constellation("verify", "-o", "json")
    assert verified.returncode == 0, verified.stderr
