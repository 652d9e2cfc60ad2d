"""AWS' own cloud controller manager and CSI driver at work in a real cluster, against moto (root).

    make drill-cloud-aws

A 1+1 cluster of the local cloud; in its network an AWS that is moto's, and in that the same cluster
as `constellation create` makes it there, with the real Terraform. The nodes get the providerIDs of
its machines, as a bootstrapper on AWS writes them; the controller manager is built from source, its
objects are those of a release, and are told where the fake AWS and its metadata service answer.
Seen: its log, what it makes, changes and removes for Services of type LoadBalancer, what it does to
a Node whose machine is stopped and then gone, and every call; between these, a claim's volume from
its making to its removal (cloud_aws_storage.py). Results in bench/results.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.cluster.cloud_leavings import look, remove_balancers
from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from constellation.kube.cloud_objects import check_objects
from constellation.releases import lock as locks
from tests.cluster.conftest import Workspace, eventually
from tests.cluster.machines import machine, power
from tests.cluster.wire import network
from tests.drills import cloud_aws_storage as storage
from tests.drills.loaded import RESULTS, create, say
from tests.fakes.aws_world import REGION, AwsWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.base.progress import Progress

NAME, REGISTRY = "aws-cloud-controller-manager", "example.test"
# inside the cloud: its own load balancer's address, and a port for metadata
HOST, METADATA_PORT = "10.42.0.1", 8169
AGENT, STORAGE_AGENT = "kubernetes/v1.36.2", "aws-ebs-csi-driver-"
PROFILES = {
    "instanceProfileControlPlanes": "cloudy-constellation-control-planes",
    "instanceProfileWorkers": "cloudy-constellation-workers",
}
TYPE = "service.beta.kubernetes.io/aws-load-balancer-type"


@dataclass(kw_only=True)
class Stage:
    """The cluster, its twin on AWS, and what was seen so far."""

    workspace: Workspace
    world: AwsWorld
    seen: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def wait(self, what: str, check: Callable[[], bool], *, seconds: float) -> None:
        """Wait until it is so, and note how long that took."""
        start = time.monotonic()
        if not eventually(check, seconds=seconds):
            say(self.log()[-8000:])
            raise AssertionError(f"not within {seconds} s: {what}")
        self.seen[what] = round(time.monotonic() - start, 1)
        say(f"{what}: {self.seen[what]} s")

    def kubectl(self, *words: str, stdin: str = "") -> str:
        done = self.workspace.kubectl(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def log(self) -> str:
        return self.workspace.kubectl(
            "-n", "kube-system", "logs", f"daemonset/{NAME}", "--tail=-1"
        ).stdout

    def aws(self, *words: str) -> Any:
        """Ask the fake AWS with boto3: SERVICE CALL, then JSON of its arguments."""
        done = self.world.run(sys.executable, "-W", "ignore", "-c", _ASK, REGION, *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


_ASK = (
    "import boto3, json, sys; region, service, call, *more = sys.argv[1:]; "
    "client = boto3.client(service, region_name=region); "
    "arguments = json.loads(more[0]) if more else {}; "
    "print(json.dumps(getattr(client, call)(**arguments), default=str))"
)


def run(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Do all of it; give what was seen."""
    component = _build(workspace, folder)
    (folder / "on-aws").mkdir()
    world = AwsWorld.within(
        folder / "on-aws", net=network(workspace), also=HOST, metadata=f"{HOST}:{METADATA_PORT}"
    )
    try:
        stage = Stage(workspace=workspace, world=world)
        machines = _cluster_on_aws(stage)
        _start(stage, component["objects"], machines)
        _services(stage, machines)
        volume = storage.run_storage(stage, machines, folder)
        told = storage.logs_of(stage)
        (folder / "storage.log").write_text(told)
        assert "forbidden" not in told.lower()
        _a_machine_goes(stage, machines)
        _services_go(stage)
        log = stage.log()
        (folder / "controller.log").write_text(log)
        assert "forbidden" not in log.lower()
        _twin_goes(stage)
        locked = locks.load().clouds["aws"].source
        return {
            "kubernetes": DEFAULT_KUBERNETES_VERSION,
            "images": sorted(i["image"] for i in component["images"]),
            "programs": {n: a.sha256 for n, a in sorted(locked.items()) if "/" not in n},
            "seconds": stage.seen,
            "calls": _calls(world, AGENT),
            "storage_calls": _calls(world, STORAGE_AGENT),
            "volume": volume,
        }
    finally:
        world.close()


def _calls(world: AwsWorld, agent: str) -> list[str]:
    return sorted({call.replace("?", "") for call in world.calls_of(agent)})


def _build(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Have images and objects as a publisher has them; the cluster's registry gets the images."""
    words = ("artifacts", "cloud", "aws", "--registry", REGISTRY, "--to", str(folder / "release"))
    built = workspace.constellation(*words, "-o", "json", timeout_s=1800)
    assert built.returncode == 0, built.stderr
    made: dict[str, Any] = json.loads(built.stdout)
    for image in made["images"]:
        named = ("--name", image["name"])
        loaded = workspace.constellation("mini", "load-image", image["archive"], *named)
        assert loaded.returncode == 0, loaded.stderr
    return made


def _cluster_on_aws(stage: Stage) -> dict[str, list[Any]]:
    """Make identities and machines with the real Terraform; give the machines by role."""
    world = stage.world
    world.configure(workers=1, cloudIntegration=True)
    world.constellation("iam", "create", "--yes")
    policies = stage.aws(
        "iam",
        "list_role_policies",
        json.dumps({"RoleName": PROFILES["instanceProfileControlPlanes"]}),
    )["PolicyNames"]
    assert sorted(policies) == ["cloud-integration", "cloud-storage", "constellation"], policies
    # a release that names objects for AWS is not what this is about
    world.configure(workers=1, **PROFILES)
    start = time.monotonic()
    world.constellation("create", "--yes")
    stage.seen["Terraform made the cluster's twin"] = round(time.monotonic() - start, 1)
    machines = {m[2]["constellation-role"]: m for m in world.inventory()["instances"]}
    world.become(machines["control-plane"], user_data="")
    return machines


def _start(stage: Stage, objects: str, machines: dict[str, list[Any]]) -> None:
    """Name the nodes' machines, apply the release's objects, and tell them where AWS is."""
    for node in json.loads(stage.kubectl("get", "nodes", "-o", "json"))["items"]:
        plane = "node-role.kubernetes.io/control-plane" in node["metadata"]["labels"]
        instance = machines["control-plane" if plane else "worker"][0]
        patch = {"spec": {"providerID": f"aws:///{REGION}a/{instance}"}}
        stage.kubectl("patch", "node", node["metadata"]["name"], "-p", json.dumps(patch))
    data = Path(objects).read_bytes()
    check_objects(data)
    types = stage.aws("ec2", "describe_instances")["Reservations"]
    storage.label_nodes(stage, types[0]["Instances"][0]["InstanceType"])
    stage.kubectl("apply", "-f", "-", stdin=data.decode())
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "only-here", "namespace": "kube-system"},
        "data": {"cloud.conf": _cloud_config(stage.world.port)},
    }
    stage.kubectl("apply", "-f", "-", stdin=json.dumps(config))
    stage.kubectl("-n", "kube-system", "patch", "daemonset", NAME, "-p", json.dumps(_only_here()))
    # a container's own list of arguments is replaced as a whole: add one
    more = [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/0/args/-",
            "value": "--cloud-config=/only-here/cloud.conf",
        }
    ]
    stage.kubectl(
        "-n", "kube-system", "patch", "daemonset", NAME, "--type=json", "-p", json.dumps(more)
    )
    stage.kubectl(
        "-n", "kube-system", "patch", "daemonset", storage.CONTROLLER,
        "-p", json.dumps(_only_here_driver(stage.world.port)),
    )  # fmt: skip
    stage.wait(
        "its pod is ready, and it leads",
        lambda: "successfully acquired lease" in stage.log().lower(),
        seconds=120,
    )


def _cloud_config(port: int) -> str:
    """Tell where the fake AWS is; services by the names that AWS' client library gives them."""
    services = {
        "EC2": "ec2",
        "Elastic Load Balancing": "elasticloadbalancing",
        "Elastic Load Balancing v2": "elasticloadbalancing",
    }
    sections = [
        f'[ServiceOverride "{number}"]\nService = "{service}"\nRegion = {REGION}\n'
        f"URL = http://{HOST}:{port}\nSigningRegion = {REGION}\nSigningName = {name}\n"
        for number, (service, name) in enumerate(services.items())
    ]
    return "[Global]\n" + "".join(sections)


def _only_here() -> dict[str, Any]:
    metadata = f"http://{HOST}:{METADATA_PORT}"
    container = {
        "name": NAME,
        "env": [{"name": "AWS_EC2_METADATA_SERVICE_ENDPOINT", "value": metadata}],
        "volumeMounts": [{"name": "only-here", "mountPath": "/only-here", "readOnly": True}],
    }
    volume = {"name": "only-here", "configMap": {"name": "only-here"}}
    return {"spec": {"template": {"spec": {"containers": [container], "volumes": [volume]}}}}


def _only_here_driver(port: int) -> dict[str, Any]:
    endpoints = {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{HOST}:{METADATA_PORT}",
        "AWS_EC2_ENDPOINT": f"http://{HOST}:{port}",
    }
    container = {
        "name": "aws-ebs-csi-driver",
        "env": [{"name": name, "value": value} for name, value in endpoints.items()],
    }
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def _service(name: str, ports: tuple[int, ...], **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "web"},
            "ports": [{"name": f"p{p}", "port": p, "targetPort": 8080} for p in ports],
        },
    }


def _has_address(stage: Stage, name: str) -> bool:
    return bool(_address(stage, name))


def _services(stage: Stage, machines: dict[str, list[Any]]) -> None:
    """Ask for a load balancer of both kinds, then for another port: they lead to the worker."""
    worker = machines["worker"][0]
    both = (_service("classic", (80,)), _service("network", (80,), **{TYPE: "nlb"}))
    for service in both:
        stage.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    for name in ("classic", "network"):
        has = partial(_has_address, stage, name)
        stage.wait(f"a load balancer for the Service {name}", has, seconds=90)
    (classic,) = _classic(stage)
    assert [i["InstanceId"] for i in classic["Instances"]] == [worker], classic
    assert _tags(stage, classic["LoadBalancerName"])["KubernetesCluster"] == _uid(machines)
    stage.wait("network: the worker is its target", lambda: _targets(stage) == [worker], seconds=60)
    assert _reaches_the_worker(stage), "the worker's security group lets no load balancer in"
    for service in (_service("classic", (81,)), _service("network", (81,), **{TYPE: "nlb"})):
        stage.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    stage.wait("another port of both", lambda: _ports(stage) == {81}, seconds=90)


def _a_machine_goes(stage: Stage, machines: dict[str, list[Any]]) -> None:
    """Switch the worker off: its Node stays, is tainted once stopped, and goes once it is gone."""
    name = _worker_node(stage)
    instance = json.dumps({"InstanceIds": [machines["worker"][0]]})
    power(stage.workspace, machine(stage.workspace, "worker").instance_id, "off")
    stage.wait("the Node is not Ready", lambda: _ready(stage, name) != "True", seconds=120)
    time.sleep(15)  # three looks of the controller: the machine runs, says AWS
    assert _worker_node(stage) == name
    stage.aws("ec2", "stop_instances", instance)
    stage.wait("stopped: the Node is tainted", lambda: _tainted(stage, name), seconds=60)
    stage.aws("ec2", "terminate_instances", instance)
    stage.wait("gone: the Node is deleted", lambda: _worker_node(stage) == "", seconds=60)
    assert f"no longer present in cloud provider: {name}" in stage.log()
    stage.wait("no load balancer leads to it", lambda: not _led_to(stage), seconds=120)


def _services_go(stage: Stage) -> None:
    """Remove them as `terminate` does; nothing of theirs is left on AWS."""
    kubeconfig = stage.workspace.folder / "constellation-admin.conf"
    named = {b.name: b.addresses for b in asyncio.run(look(kubeconfig)).balancers}
    assert named == {name: (_address(stage, name),) for name in ("classic", "network")}, named
    start = time.monotonic()
    left = asyncio.run(remove_balancers(kubeconfig, wait_s=120, report=_tell))
    assert left == ()
    stage.seen["the Services are deleted, as before a removal"] = round(time.monotonic() - start, 1)
    stage.wait(
        "nothing of the Services is left",
        lambda: not _classic(stage) and not _network(stage) and not _own_groups(stage),
        seconds=60,
    )


def _tell(progress: Progress) -> None:
    say(f"{progress.step}: {progress.detail}")


def _twin_goes(stage: Stage) -> None:
    """Remove the cluster on AWS: no load balancer stands in its network any more."""
    start = time.monotonic()
    stage.world.constellation("terminate", "--yes")
    stage.seen["Terraform removed the cluster's twin"] = round(time.monotonic() - start, 1)


def _uid(machines: dict[str, list[Any]]) -> str:
    uid: str = machines["worker"][2]["constellation-uid"]
    return uid


def _address(stage: Stage, service: str) -> str:
    path = "jsonpath={.status.loadBalancer.ingress[0].hostname}"
    return stage.kubectl("get", "service", service, "-o", path)


def _classic(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.aws("elb", "describe_load_balancers")[
        "LoadBalancerDescriptions"
    ]
    return found


def _network(stage: Stage) -> list[str]:
    """Give its network load balancers: those that Terraform made have the cluster's name."""
    found = stage.aws("elbv2", "describe_load_balancers")["LoadBalancers"]
    return [b["LoadBalancerArn"] for b in found if not b["LoadBalancerName"].startswith("cloudy-")]


def _groups(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for balancer in _network(stage):
        arguments = json.dumps({"LoadBalancerArn": balancer})
        found += stage.aws("elbv2", "describe_target_groups", arguments)["TargetGroups"]
    return found


def _targets(stage: Stage) -> list[str]:
    found = []
    for group in _groups(stage):
        arguments = json.dumps({"TargetGroupArn": group["TargetGroupArn"]})
        health = stage.aws("elbv2", "describe_target_health", arguments)
        found += [t["Target"]["Id"] for t in health["TargetHealthDescriptions"]]
    return found


def _led_to(stage: Stage) -> list[str]:
    return _targets(stage) + [i["InstanceId"] for b in _classic(stage) for i in b["Instances"]]


def _ports(stage: Stage) -> set[int]:
    classic = {
        d["Listener"]["LoadBalancerPort"]
        for b in _classic(stage)
        for d in b["ListenerDescriptions"]
    }
    for balancer in _network(stage):
        arguments = json.dumps({"LoadBalancerArn": balancer})
        listed = stage.aws("elbv2", "describe_listeners", arguments)["Listeners"]
        classic |= {listener["Port"] for listener in listed}
    return classic


def _tags(stage: Stage, balancer: str) -> dict[str, str]:
    arguments = json.dumps({"LoadBalancerNames": [balancer]})
    (found,) = stage.aws("elb", "describe_tags", arguments)["TagDescriptions"]
    return {t["Key"]: t["Value"] for t in found["Tags"]}


def _own_groups(stage: Stage) -> list[str]:
    found = stage.aws("ec2", "describe_security_groups")["SecurityGroups"]
    return [g["GroupName"] for g in found if g["GroupName"].startswith("k8s-elb-")]


def _reaches_the_worker(stage: Stage) -> bool:
    groups = stage.aws("ec2", "describe_security_groups")["SecurityGroups"]
    (own,) = [g["GroupId"] for g in groups if g["GroupName"].startswith("k8s-elb-")]
    (workers,) = [g for g in groups if g["GroupName"].endswith("-workers")]
    pairs = [p["GroupId"] for r in workers["IpPermissions"] for p in r["UserIdGroupPairs"]]
    return own in pairs


def _nodes(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stage.kubectl("get", "nodes", "-o", "json"))["items"]
    return found


def _worker_node(stage: Stage) -> str:
    plane = "node-role.kubernetes.io/control-plane"
    names = [n["metadata"]["name"] for n in _nodes(stage) if plane not in n["metadata"]["labels"]]
    return names[0] if names else ""


def _ready(stage: Stage, name: str) -> str:
    (node,) = [n for n in _nodes(stage) if n["metadata"]["name"] == name]
    return next(str(c["status"]) for c in node["status"]["conditions"] if c["type"] == "Ready")


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
        (RESULTS / "drill-cloud-aws.json").write_text(text)
        sys.stdout.write(text)
    finally:
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    say("logs of the components:", folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
