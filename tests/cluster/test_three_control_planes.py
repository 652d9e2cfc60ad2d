"""Three control planes and two workers on the real thing: what is lost when machines are.

One cluster for all tests, in this order: each leaves all machines running, up to the last two,
which delete machines.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import itertools
import json
import logging
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from constellation.providers.local.infrastructure import LocalInfrastructure
from tests.cluster.machines import inside
from tests.cluster.test_attack_inside import request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2700)]

_log = logging.getLogger(__name__)

EVERY_S = 0.1
FAILED_AFTER_S = 5.0
LONGEST_GAP_S = 5.0


def test_three_control_planes_and_two_workers_are_ready(ha: Workspace) -> None:
    assert ready(ha) == 5
    assert len(voters(ha)) == 3


def test_a_killed_control_plane_does_not_stop_the_api_and_comes_back(ha: Workspace) -> None:
    victim = control_planes(ha)[0]
    before = boot(ha, victim)
    with Probe(ha) as probe:
        power(ha, victim, "kill")
        found_out_s = time.monotonic() + LONGEST_GAP_S
        time.sleep(12)
    gap_s = probe.longest_gap_s()
    _log.info("API without an answer for %.1f s, %d failed", gap_s, probe.failed())
    assert gap_s <= LONGEST_GAP_S
    # two of three that answer leave no gap: nobody may still be led to the third
    assert probe.failed(since_s=found_out_s) == 0
    power(ha, victim, "on")
    took_s = eventually(lambda: back(ha, victim, before), seconds=120)
    _log.info("control plane back after %.0f s", took_s)
    assert len(voters(ha)) == 3


def test_a_killed_worker_costs_no_request_and_comes_back_with_its_disk(ha: Workspace) -> None:
    victim = workers(ha)[0]
    before = boot(ha, victim)
    disk = state_disk(ha, victim)
    with Probe(ha) as probe:
        power(ha, victim, "kill")
        time.sleep(5)
    assert probe.failed() == 0, f"{probe.failed()} of {probe.count()}"
    power(ha, victim, "on")
    took_s = eventually(lambda: back(ha, victim, before), seconds=120)
    _log.info("worker back after %.0f s", took_s)
    assert state_disk(ha, victim) == disk


def test_two_of_three_control_planes_come_back_without_recover(ha: Workspace) -> None:
    victims = control_planes(ha)[1:]
    boots = {v: boot(ha, v) for v in victims}
    made = ha.kubectl("create", "configmap", "before", "--from-literal=kept=yes")
    assert made.returncode == 0, made.stderr
    for victim in victims:
        power(ha, victim, "kill")
    for victim in victims:
        power(ha, victim, "on")
    took_s = eventually(lambda: all(back(ha, v, boots[v]) for v in victims), seconds=150)
    _log.info("two control planes back after %.0f s", took_s)
    kept = ha.kubectl("get", "configmap", "before", "-o", "jsonpath={.data.kept}")
    assert kept.stdout == "yes"


def test_the_log_tells_of_every_return(ha: Workspace) -> None:
    def told() -> bool:
        log = ha.constellation("log", "-o", "json")
        return log.returncode == 0 and log.stdout.count('"rejoined"') >= 4

    eventually(told, seconds=30)


@pytest.fixture(scope="module")
def stolen(ha: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Give the name of a worker and its kubelet's credentials, which outlive the machine."""
    victim = workers(ha)[1]
    pid = next(p for i, _, p in all_instances(ha) if i == victim)
    kept = tmp_path_factory.mktemp("stolen") / "kubelet.pem"
    kept.touch(mode=0o600)
    certificate = "var/lib/kubelet/pki/kubelet-client-current.pem"
    # a link to its absolute place in the node
    kept.write_text(inside(pid, "cat", f"/{certificate}"))
    return node_of(ha, victim)[0], kept


def test_a_deleted_worker_loses_its_node(ha: Workspace, stolen: tuple[str, Path]) -> None:
    assert stolen[1].read_text().count("BEGIN") == 2
    _, address = node_of(ha, workers(ha)[1])
    with Probe(ha) as probe:
        delete(ha, workers(ha)[1])
        # another machine takes its place meanwhile, at another address
        took_s = eventually(lambda: address not in addresses(ha), seconds=180)
    _log.info("worker's node removed after %.0f s", took_s)
    assert probe.failed() == 0


def test_a_deleted_control_plane_loses_its_etcd_member_and_its_node(ha: Workspace) -> None:
    victim = control_planes(ha)[2]
    name, address = node_of(ha, victim)
    delete(ha, victim)

    def gone() -> bool:
        left = voters(ha)
        return address not in addresses(ha) and len(left) >= 2 and name not in left

    took_s = eventually(gone, seconds=240)
    _log.info("control plane's etcd member and node removed after %.0f s", took_s)


def test_a_removed_nodes_kubelet_does_not_come_back(
    ha: Workspace, stolen: tuple[str, Path]
) -> None:
    name, credentials = stolen
    as_kubelet = (f"--client-certificate={credentials}", f"--client-key={credentials}", "--user=")

    def removed() -> bool:
        log = ha.constellation("log", "-o", "json")
        records = json.loads(log.stdout)["records"] if log.returncode == 0 else []
        return any(r["kind"] == "removed" and name in json.dumps(r) for r in records)

    eventually(removed, seconds=120)
    who = ha.kubectl(*as_kubelet, "auth", "whoami", "-o", "json")
    assert f"system:node:{name}" in who.stdout, "the control case: its certificate is still good"
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    renewal = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "back-again"},
        "spec": {
            "request": request(f"system:node:{name}", "system:nodes"),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }
    for body in (node, renewal):
        refused = ha.kubectl(*as_kubelet, "create", "-f", "-", stdin=json.dumps(body))
        assert refused.returncode != 0
        assert "no member of the cluster" in refused.stderr, refused.stderr
    assert name not in {n["metadata"]["name"] for n in nodes(ha)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: when it was sent and answered (steady clock), and whether that was success."""

    sent_s: float
    answered_s: float
    ok: bool


class Probe:
    """Ten requests a second through the load balancer, each on a fresh connection, no retries.

    A request reads an object from etcd; it failed if it was refused, reset, not answered with 200,
    or took longer than 5 s.
    """

    def __init__(self, ha: Workspace) -> None:
        config = YAML(typ="safe").load(ha.folder / "constellation-admin.conf")
        self._server = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._tls = _client_tls(config)
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._clock.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._clock.join()
        for thread in self._threads:
            thread.join()

    def count(self) -> int:
        return len(self._samples)

    def failed(self, *, since_s: float = 0) -> int:
        """Count the failed requests that were sent after a time (steady clock)."""
        return sum(not s.ok for s in self._samples if s.sent_s >= since_s)

    def longest_gap_s(self) -> float:
        """Give the longest time between two answers that were successes, in seconds."""
        answered = sorted(s.answered_s for s in self._samples if s.ok)
        return max(b - a for a, b in itertools.pairwise(answered))

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            thread = threading.Thread(target=self._ask)
            thread.start()
            self._threads.append(thread)

    def _ask(self) -> None:
        sent = time.monotonic()
        try:
            connection = http.client.HTTPSConnection(
                str(self._server.hostname),
                self._server.port,
                context=self._tls,
                timeout=FAILED_AFTER_S,
            )
            connection.request("GET", "/api/v1/namespaces/kube-system")
            ok = connection.getresponse().status == http.HTTPStatus.OK
            connection.close()
        except (OSError, http.client.HTTPException):
            ok = False
        now = time.monotonic()
        in_time = now - sent <= FAILED_AFTER_S
        self._samples.append(Sample(sent_s=sent, answered_s=now, ok=ok and in_time))


def _client_tls(config: Any) -> ssl.SSLContext:
    ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    user = config["users"][0]["user"]
    context = ssl.create_default_context(cadata=ca.decode())
    with tempfile.NamedTemporaryFile() as file:
        for name in ("client-certificate-data", "client-key-data"):
            file.write(base64.b64decode(user[name]))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def eventually(check: Callable[[], bool], *, seconds: float) -> float:
    """Wait until `check` holds; gives the seconds that it took."""
    begin = time.monotonic()
    while not check():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s"
        time.sleep(0.5)
    return time.monotonic() - begin


def cloud(ha: Workspace) -> LocalInfrastructure:
    return LocalInfrastructure(YAML(typ="safe").load(ha.folder / "constellation-state.yaml")["uid"])


def power(ha: Workspace, instance_id: str, action: str) -> None:
    asyncio.run(cloud(ha).power(instance_id, action))


def delete(ha: Workspace, instance_id: str) -> None:
    asyncio.run(cloud(ha).delete(instance_id))


def instances(ha: Workspace, role: str) -> list[tuple[str, str, int]]:
    """Give instance id, address and init's pid of each machine with a role, by index."""
    nodes = asyncio.run(cloud(ha).nodes())
    return sorted((n.instance_id, n.address, n.pid) for n in nodes if n.role == role)


def all_instances(ha: Workspace) -> list[tuple[str, str, int]]:
    return [*instances(ha, "control-plane"), *instances(ha, "worker")]


def control_planes(ha: Workspace) -> list[str]:
    return [i for i, _, _ in instances(ha, "control-plane")]


def workers(ha: Workspace) -> list[str]:
    return [i for i, _, _ in instances(ha, "worker")]


def nodes(ha: Workspace) -> list[dict[str, Any]]:
    """Give Kubernetes' Node objects; none while the API does not answer."""
    got = ha.kubectl("--request-timeout=3s", "get", "nodes", "-o", "json")
    return list(json.loads(got.stdout)["items"]) if got.returncode == 0 else []


def ready(ha: Workspace) -> int:
    return sum(is_ready(n) for n in nodes(ha))


def is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


def addresses(ha: Workspace) -> set[str]:
    """Give the addresses of Node objects, never an empty set while the API does not answer."""
    return {a["address"] for n in nodes(ha) for a in n["status"]["addresses"]} or {"unknown"}


def node_of(ha: Workspace, instance_id: str) -> tuple[str, str]:
    """Give the node's name and address of a machine."""
    address = next(a for i, a, _ in all_instances(ha) if i == instance_id)
    found = _by_address(ha, address)
    assert found is not None
    return found["metadata"]["name"], address


def boot(ha: Workspace, instance_id: str) -> str:
    """Give the id that the node's system made at its last start, as its Node object says it."""
    found = _by_address(ha, node_of(ha, instance_id)[1])
    assert found is not None
    return str(found["status"]["nodeInfo"]["machineID"])


def back(ha: Workspace, instance_id: str, before: str) -> bool:
    """Say whether a machine that was at boot `before` has booted again and is Ready."""
    address = next(a for i, a, _ in all_instances(ha) if i == instance_id)
    found = _by_address(ha, address)
    if found is None or not is_ready(found):
        return False
    if found["status"]["nodeInfo"]["machineID"] == before:
        return False
    return address.startswith("10.42.2.") or healthy_etcds(ha) == len(voters(ha))


def state_disk(ha: Workspace, instance_id: str) -> dict[str, str]:
    """Give what a running machine says about its state disk."""
    pid = next(p for i, _, p in all_instances(ha) if i == instance_id)
    record = Path(f"/proc/{pid}/root/run/constellation/disk.json")
    disk: dict[str, str] = json.loads(record.read_bytes())
    assert disk["state"] == "open"
    return disk


def voters(ha: Workspace) -> list[str]:
    """Give the names of etcd's voting members; none while it does not answer."""
    listed = etcdctl(ha, "member", "list")
    return [m["name"] for m in (listed or {}).get("members", []) if not m.get("isLearner")]


def healthy_etcds(ha: Workspace) -> int:
    """Count etcd's members that answer."""
    health = etcdctl(ha, "endpoint", "health", "--cluster")
    return sum(e["health"] for e in health or [])


def etcdctl(ha: Workspace, *words: str) -> Any:
    """Ask etcd on a control plane whose API server reaches its kubelet; None without an answer."""
    pki = "/etc/kubernetes/pki/etcd"
    for node in nodes(ha):
        if "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"]:
            continue
        got = ha.kubectl(
            *("exec", "-n", "kube-system", f"etcd-{node['metadata']['name']}", "--", "etcdctl"),
            *(f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"),
            *(*words, "-w", "json"),
            timeout_s=30,
        )
        if got.stdout:
            return json.loads(got.stdout)
    return None


def _by_address(ha: Workspace, address: str) -> dict[str, Any] | None:
    return next(
        (n for n in nodes(ha) if any(a["address"] == address for a in n["status"]["addresses"])),
        None,
    )
