"""OpenStack's own components at work in a real cluster, against a Keystone and a fake of the rest.

    make drill-cloud-openstack

A 1+1 cluster of the local cloud; in its network an OpenStack: Keystone is a real one, Nova,
Neutron, Octavia and Cinder are ours (`tests.fakes.openstack_components`), each call held to the
access rules that Keystone says the token has. The components are built from source, their objects
are those of a release, unchanged; their credential lies where KeyService puts it, by KeyService's
own code. Seen: what the controller manager makes, changes and removes for Services of type
LoadBalancer; a claim's volume made, attached, formatted, written, grown, moved, removed; that the
controller manager goes on with another credential when the first is revoked; what happens to a Node
whose machine is stopped and then gone; and every call. Results in bench/results.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.kube.cloud_objects import check_objects
from constellation.providers.openstack.access import dump_access
from constellation.releases import lock as locks
from constellation.services.keyservice.component_folder import FOLDER, GROUP, ComponentFolder
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.machines import inside, machine, power
from tests.cluster.wire import network
from tests.drills.cloud_openstack_storage import Machines, run_storage, storage_logs
from tests.drills.loaded import RESULTS, create, say
from tests.drills.openstack_cloud import OpenStack

if TYPE_CHECKING:
    from collections.abc import Callable

NAME, REGISTRY = "openstack-cloud-controller-manager", "example.test"
CONFLICT = 7
HOST = "10.42.0.1"
"""Inside the cloud: its own load balancer's address."""
UID = "constell-ab12cd"
PLANE = "node-role.kubernetes.io/control-plane"


@dataclass(kw_only=True)
class Stage:
    """The cluster, its OpenStack, its machines there by role, and what was seen so far."""

    workspace: Workspace
    stack: OpenStack
    machines: dict[str, str]
    folder: ComponentFolder
    seen: dict[str, Any] = field(default_factory=dict)

    def wait(self, what: str, check: Callable[[], bool], *, seconds: float) -> None:
        """Wait until it is so, and note how long that took."""
        start = time.monotonic()
        if not eventually(check, seconds=seconds):
            say(self.log()[-8000:])
            say(self.stack.cloud.refused)
            say(self.workspace.kubectl("get", "pods", "-A", "-o", "wide").stdout)
            raise AssertionError(f"not within {seconds} s: {what}")
        self.seen[what] = round(time.monotonic() - start, 1)
        say(f"{what}: {self.seen[what]} s")

    def kubectl(self, *words: str, stdin: str = "") -> str:
        done = self.workspace.kubectl(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def log(self, *more: str) -> str:
        return self.workspace.kubectl(
            "-n", "kube-system", "logs", f"daemonset/{NAME}", "--tail=-1", *more
        ).stdout

    def give(self, credential: tuple[str, str]) -> None:
        """Let control planes have it, as their KeyService does."""
        access = dump_access(self.stack.access(UID, credential))
        self.folder.follow(access, provider=lambda: "openstack")


def run(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Do all of it; give what was seen."""
    component = _build(workspace, folder)
    (folder / "keystone").mkdir()
    machines = Machines(workspace=workspace, folder=folder)
    stack = OpenStack.within(
        folder / "keystone", net=network(workspace), host=HOST, hardware=machines
    )
    try:
        stage = _start(workspace, stack, Path(component["objects"]))
        machines.nodes |= {i: machine(workspace, role) for role, i in stage.machines.items()}
        _services(stage)
        _another_credential(stage)
        volume = run_storage(stage, machines)
        _a_machine_goes(stage)
        _services_go(stage)
        log = stage.log()
        log += storage_logs(stage)
        (folder / "components.log").write_text(log)
        assert "forbidden" not in log.lower()
        assert stack.cloud.refused == []
        locked = locks.load().clouds["openstack"].source
        return {
            "kubernetes": DEFAULT_KUBERNETES_VERSION,
            "images": sorted(i["image"] for i in component["images"]),
            "programs": {n: a.sha256 for n, a in sorted(locked.items()) if "/" not in n},
            "seconds": stage.seen,
            "volume": volume,
            "calls": sorted(set(stack.cloud.calls)),
        }
    finally:
        machines.close()
        stack.close()


def _build(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Have images and objects as a publisher has them; the images go to the cluster's registry."""
    words = (
        *("artifacts", "cloud", "openstack", "--registry", REGISTRY),
        *("--to", str(folder / "release"), "-o", "json"),
    )
    built = workspace.constellation(*words, timeout_s=1800)
    end = time.monotonic() + 300
    while built.returncode == CONFLICT and time.monotonic() < end:
        time.sleep(2)  # another process fills the cache
        built = workspace.constellation(*words, timeout_s=1800)
    assert built.returncode == 0, built.stderr
    made: dict[str, Any] = json.loads(built.stdout)
    for image in made["images"]:
        name = image["image"].partition("@")[0]
        loaded = workspace.constellation("mini", "load-image", image["archive"], "--name", name)
        assert loaded.returncode == 0, loaded.stderr
    return made


def _start(workspace: Workspace, stack: OpenStack, objects: Path) -> Stage:
    """Name the nodes' machines, give the credential, and apply the release's objects."""
    plane = machine(workspace, "control-plane")
    stage = Stage(
        workspace=workspace,
        stack=stack,
        machines={role: str(uuid.uuid4()) for role in ("control-plane", "worker")},
        folder=ComponentFolder(
            folder=Path(f"/proc/{plane.pid}/root") / str(FOLDER).lstrip("/"), group=GROUP
        ),
    )
    for node in _nodes(stage):
        server = stage.machines[
            "control-plane" if PLANE in node["metadata"]["labels"] else "worker"
        ]
        stack.cloud.servers[server] = "ACTIVE"
        patch = {"spec": {"providerID": f"openstack:///{server}"}}
        stage.kubectl("patch", "node", node["metadata"]["name"], "-p", json.dumps(patch))
    data = objects.read_bytes()
    check_objects(data)
    stage.kubectl("apply", "-f", "-", stdin=data.decode())
    stage.wait(
        "its pod waits for a credential", lambda: "no cloud.conf yet" in stage.log(), seconds=120
    )
    stage.give(stack.credential("components"))
    stage.wait(
        "it has one, and leads",
        lambda: "successfully acquired lease" in stage.log().lower(),
        seconds=120,
    )
    return stage


def _service(name: str, ports: tuple[int, ...], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "web"},
            "ports": [{"name": f"p{p}", "port": p, "targetPort": 8080} for p in ports],
        }
        | spec,
    }


def _services(stage: Stage) -> None:
    """Ask for a load balancer, another port, and a list of who may reach it."""
    cloud = stage.stack.cloud
    stage.kubectl("apply", "-f", "-", stdin=json.dumps(_service("web", (80,))))
    stage.wait("a load balancer for a Service", lambda: bool(_address(stage, "web")), seconds=90)
    (balancer,) = cloud.balancers.values()
    assert balancer["name"] == f"kube_service_{UID}_default_web"
    (floating,) = cloud.floating.values()
    assert floating["port_id"] == balancer["vip_port_id"]
    assert _address(stage, "web") == floating["floating_ip_address"]
    worker = machine(stage.workspace, "worker")
    service = json.loads(stage.kubectl("get", "service", "web", "-o", "json"))
    assert _led_to(stage) == {(worker.address, service["spec"]["ports"][0]["nodePort"])}
    stage.kubectl("apply", "-f", "-", stdin=json.dumps(_service("web", (81,))))
    stage.wait("another port", lambda: _ports(stage) == {81}, seconds=90)
    limited = _service("web", (81,), loadBalancerSourceRanges=["192.0.2.0/24"])
    stage.kubectl("apply", "-f", "-", stdin=json.dumps(limited))
    stage.wait(
        "who may reach it",
        lambda: [x["allowed_cidrs"] for x in cloud.listeners.values()] == [["192.0.2.0/24"]],
        seconds=90,
    )


def _another_credential(stage: Stage) -> None:
    """Give another credential and revoke the first: the controller manager goes on with it."""
    first, another = stage.stack.asked_as[-1], stage.stack.credential("another")
    assert another[0] != first
    stage.give(another)
    stage.wait("asked as another", lambda: stage.stack.asked_as[-1] == another[0], seconds=120)
    assert "has changed" in stage.log("--previous")
    stage.stack.revoke(first)
    stage.kubectl("apply", "-f", "-", stdin=json.dumps(_service("second", (90,))))
    stage.wait("a load balancer with it", lambda: bool(_address(stage, "second")), seconds=120)
    _nobody_sees(stage, another[1])


def _nobody_sees(stage: Stage, secret: str) -> None:
    """The credential's secret is nowhere in the API, the log, an argument or an environment."""
    kinds = "pods,secrets,configmaps,daemonsets,deployments,services,events,leases"
    assert secret not in stage.kubectl("get", kinds, "-A", "-o", "json")
    assert secret not in stage.log()
    plane = machine(stage.workspace, "control-plane")
    told = inside(plane.pid, "sh", "-c", "cat /proc/*/cmdline /proc/*/environ | tr '\\0' '\\n'")
    assert "--cluster-name=" + UID in told
    assert secret not in told
    worker = machine(stage.workspace, "worker")
    assert "No such file" in inside(worker.pid, "ls", str(FOLDER))


def _a_machine_goes(stage: Stage) -> None:
    """Switch the worker off: its Node stays, is tainted once stopped, and goes once it is gone."""
    name, server = _worker_node(stage), stage.machines["worker"]
    power(stage.workspace, machine(stage.workspace, "worker").instance_id, "off")
    stage.wait("the Node is not Ready", lambda: _ready(stage, name) != "True", seconds=120)
    time.sleep(15)  # three looks of the controller: the machine runs, says Nova
    assert _worker_node(stage) == name
    stage.stack.cloud.servers[server] = "SHUTOFF"
    stage.wait("stopped: the Node is tainted", lambda: _tainted(stage, name), seconds=60)
    del stage.stack.cloud.servers[server]
    stage.wait("gone: the Node is deleted", lambda: _worker_node(stage) == "", seconds=60)
    stage.wait("no load balancer leads to it", lambda: not _led_to(stage), seconds=120)


def _services_go(stage: Stage) -> None:
    """Delete the Services: nothing of theirs is left."""
    cloud = stage.stack.cloud
    stage.kubectl("delete", "service", "web", "second", "--timeout=120s")
    stage.wait(
        "nothing of the Services is left",
        lambda: not any((cloud.balancers, cloud.listeners, cloud.pools, cloud.floating)),
        seconds=60,
    )


def _address(stage: Stage, service: str) -> str:
    path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
    return stage.kubectl("get", "service", service, "-o", path)


def _led_to(stage: Stage) -> set[tuple[str, int]]:
    pools = tuple(stage.stack.cloud.pools.values())
    return {(m["address"], m["protocol_port"]) for p in pools for m in p["members"]}


def _ports(stage: Stage) -> set[int]:
    return {x["protocol_port"] for x in tuple(stage.stack.cloud.listeners.values())}


def _nodes(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stage.kubectl("get", "nodes", "-o", "json"))["items"]
    return found


def _worker_node(stage: Stage) -> str:
    names = [n["metadata"]["name"] for n in _nodes(stage) if PLANE not in n["metadata"]["labels"]]
    return names[0] if names else ""


def _ready(stage: Stage, name: str) -> str:
    (node,) = [n for n in _nodes(stage) if n["metadata"]["name"] == name]
    conditions = {c["type"]: str(c["status"]) for c in node["status"]["conditions"]}
    return conditions["Ready"]


def _tainted(stage: Stage, name: str) -> bool:
    (node,) = [n for n in _nodes(stage) if n["metadata"]["name"] == name]
    taints = [t["key"] for t in node["spec"].get("taints", ())]
    return "node.cloudprovider.kubernetes.io/shutdown" in taints


def main() -> int:
    """Run it; 0 if all was seen."""
    folder = Path(tempfile.mkdtemp(prefix="drill-cloud-"))
    workspace = Workspace(folder=folder / "cluster")
    workspace.folder.mkdir()
    try:
        create(workspace, kubernetes=DEFAULT_KUBERNETES_VERSION, control_planes=1, workers=1)
        say("cluster is up")
        found = run(workspace, folder)
        text = json.dumps(found, indent=1) + "\n"
        (RESULTS / "drill-cloud-openstack.json").write_text(text)
        sys.stdout.write(text)
    finally:
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    say("logs of the components:", folder / "components.log")
    return 0


if __name__ == "__main__":
    sys.exit(main())
