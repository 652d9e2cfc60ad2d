"""Azure's own cloud controller manager at work, built from source, against an Azure of ours (root).

    make drill-cloud-azure

In a network that leads nowhere: a real API server with two Nodes, Azure's resource manager and its
metadata service under their real names and address. The program gets what a release and a node give
it: the arguments and the roles of `artifacts/cloud-azure/objects.json`, and the cloud.conf that a
control plane writes from its metadata. Seen: what it makes, changes and removes for Services, what
it does to a Node whose machine is gone, that it needs no right beyond the table, and every call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.base.progress import silent
from constellation.config.workspace import cache_folder
from constellation.kube.cloud_objects import check_objects
from constellation.providers.azure.component_calls import CONTROLLER
from constellation.providers.azure.metadata import AzureMetadata
from constellation.releases import lock as locks
from constellation.releases.cloud_components import ensure_component
from constellation.services.bootstrapper.component_config import configure_components
from tests.drills.bare_api import NOBODY, BareApi, alone, container_of, eventually
from tests.drills.false_cloud import METADATA, serving
from tests.drills.loaded import RESULTS, say
from tests.fakes.arm import FakeAzure
from tests.fakes.arm_store import ArmStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.releases.cloud_components import Component

NAME, REGISTRY, API = "azure-cloud-controller-manager", "example.test", "management.azure.com"
BALANCER, INSIDE = "kubernetes", "kubernetes-internal"
INTERNAL = "service.beta.kubernetes.io/azure-load-balancer-internal"
WORKER = "10.42.1.11"


@dataclass(kw_only=True)
class Stage:
    """API server, fake Azure, the program's log, and what was seen so far."""

    api: BareApi
    arm: ArmStore
    log: Path
    seen: dict[str, float] = field(default_factory=dict)

    def wait(self, what: str, check: Callable[[], bool], *, seconds: float = 60) -> None:
        start = time.monotonic()
        if not eventually(check, seconds=seconds):
            say(self.log.read_text()[-6000:])
            raise AssertionError(f"not within {seconds} s: {what}")
        self.seen[what] = round(time.monotonic() - start, 1)
        say(f"{what}: {self.seen[what]} s")

    def balancer(self, name: str) -> dict[str, Any]:
        found = self.arm.of_kind("Microsoft.Network/loadBalancers").get(name, {})
        properties: dict[str, Any] = found.get("properties", {})
        return properties

    def rules(self) -> list[dict[str, Any]]:
        (group,) = self.arm.of_kind("Microsoft.Network/networkSecurityGroups").values()
        return [r["properties"] for r in group["properties"]["securityRules"]]

    def address(self, service: str) -> str:
        path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        return self.api.kubectl("get", "service", service, "-o", path)

    def has_address(self, service: str) -> bool:
        return bool(self.address(service))

    def nodes(self) -> set[str]:
        return {n["metadata"]["name"] for n in self.api.objects("nodes")}


def run(folder: Path, made: Component, azure: FakeAzure, arm: ArmStore) -> dict[str, Any]:
    """Do all of it; give what was seen."""
    objects = check_and_load(made.objects)
    with (
        serving(folder, names=(API,), api=arm.app(), metadata=azure.imds.app()) as authority,
        BareApi.started(folder, cache=cache_folder()) as api,
    ):
        asyncio.run(configure_components(AzureMetadata(), folder=folder / "cloud", group=NOBODY))
        api.apply(*objects)
        machines = _nodes(api, arm)
        container = container_of(objects, NAME, NAME)
        locked = locks.load().clouds["azure"].source[NAME]
        log = api.start(
            NAME,
            api.store.path(locked.sha256),
            # where the folder is mounted in a pod
            *(a.replace("=/cloud/", f"={folder}/cloud/") for a in container["args"]),
            f"--kubeconfig={api.kubeconfig_of(NAME)}",
            user=NOBODY,
            SSL_CERT_FILE=str(authority),
        )
        stage = Stage(api=api, arm=arm, log=log)
        stage.wait("it leads", lambda: "successfully acquired lease" in log.read_text().lower())
        _services(stage)
        _a_machine_goes(stage, machines["worker-default-0"])
        _services_go(stage)
        said = log.read_text()
        assert "forbidden" not in said.lower(), said[-4000:]
        assert not arm.refused, arm.refused
        return {
            "image": made.images[0].reference,
            "program": locked.sha256,
            "seconds": stage.seen,
            "permissions": sorted(arm.permissions),
            "calls": sorted({shape(m, p) for m, p in arm.requests}),
        }


def check_and_load(data: bytes) -> list[dict[str, Any]]:
    """Give a release's objects, as a node takes them."""
    check_objects(data)
    found: list[dict[str, Any]] = json.loads(data)["items"]
    return found


def shape(method: str, path: str) -> str:
    """Give a call without names."""
    below = path.rpartition("/providers/")[2].split("/")
    return f"{method} {'/'.join(p if i % 2 or not i else '*' for i, p in enumerate(below))}"


def _nodes(api: BareApi, arm: ArmStore) -> dict[str, str]:
    """Make two Nodes as bootstrapper and kubelet do; give their machines."""
    arm.network()
    machines = {}
    for role, address in (("control-plane", "10.42.1.10"), ("worker", WORKER)):
        name = f"{role}-default-0"
        machines[name] = arm.machine(f"{arm.uid}-{role}-default", "0")
        labels = {f"node-role.kubernetes.io/{role}": ""} if role == "control-plane" else {}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": f"azure://{machines[name]}"},
        }
        api.apply(node)
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        }
        _status(api, name, condition, address)
    return machines


def _status(api: BareApi, name: str, condition: dict[str, str], address: str) -> None:
    addresses = [{"type": "InternalIP", "address": address}]
    status = {"status": {"conditions": [condition], "addresses": addresses}}
    words = ("patch", "node", name, "--subresource=status", "--type=merge", "-p")
    api.kubectl(*words, json.dumps(status))


def _service(name: str, port: int, **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "web"},
            "ports": [{"name": "web", "port": port, "targetPort": 8080}],
        },
    }


def _services(stage: Stage) -> None:
    """Ask for a load balancer outside and one inside, then for another port."""
    stage.api.apply(_service("outside", 80), _service("inside", 80, **{INTERNAL: "true"}))
    for name in ("outside", "inside"):
        stage.wait(f"the Service {name} has an address", partial(stage.has_address, name))
    outside = stage.address("outside")
    assert outside.startswith("203.0.113."), outside
    assert stage.address("inside").startswith("10.42.255.")
    for name in (BALANCER, INSIDE):
        (pool,) = stage.balancer(name)["backendAddressPools"]
        addresses = [
            a["properties"]["ipAddress"] for a in pool["properties"]["loadBalancerBackendAddresses"]
        ]
        assert addresses == [WORKER], addresses  # no control plane
        (rule,) = stage.balancer(name)["loadBalancingRules"]
        assert rule["properties"]["frontendPort"] == 80
        # the way out is the NAT gateway's
        assert rule["properties"]["disableOutboundSnat"] is True
    (opened,) = (r for r in stage.rules() if outside in _destinations(r))
    assert (opened["access"], opened["destinationPortRanges"]) == ("Allow", ["80"])
    assert 500 <= opened["priority"] < 4096
    stage.api.apply(_service("outside", 81))
    stage.wait(
        "another port",
        lambda: (
            [
                r["properties"]["frontendPort"]
                for r in stage.balancer(BALANCER)["loadBalancingRules"]
            ]
            == [81]
        ),
    )


def _destinations(rule: dict[str, Any]) -> list[str]:
    return [*rule.get("destinationAddressPrefixes", ()), rule.get("destinationAddressPrefix", "")]


def _a_machine_goes(stage: Stage, machine: str) -> None:
    """Let the worker's kubelet go silent, then its machine: the Node goes with the machine."""
    name = "worker-default-0"
    condition = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    _status(stage.api, name, condition, WORKER)
    time.sleep(12)  # two looks of the controller: the machine is there, says Azure
    assert name in stage.nodes()
    del stage.arm.resources[machine.lower()]
    # it remembers a scale set's machines for ten minutes, and asks again for one that it knows
    stage.wait("gone: the Node is deleted", lambda: name not in stage.nodes(), seconds=700)
    assert "control-plane-default-0" in stage.nodes()


def _services_go(stage: Stage) -> None:
    """Delete the Services: nothing of theirs is left."""
    stage.api.kubectl("delete", "service", "outside", "inside", "--timeout=50s")
    stage.wait("nothing of the Services is left", lambda: _left(stage) == ([], [], [120, 4096]))


def _left(stage: Stage) -> tuple[list[str], list[str], list[int]]:
    """Give load balancers, addresses and rules; two rules are Terraform's."""
    kinds = ("Microsoft.Network/loadBalancers", "Microsoft.Network/publicIPAddresses")
    balancers, addresses = (list(stage.arm.of_kind(kind)) for kind in kinds)
    return balancers, addresses, sorted(r["priority"] for r in stage.rules())


def main() -> int:
    """Run it; 0 if all was seen."""
    folder = Path(tempfile.mkdtemp(prefix="drill-azure-"))
    made = asyncio.run(
        ensure_component("azure", registry=REGISTRY, cache=cache_folder(), report=silent)
    )
    azure = FakeAzure()
    arm = ArmStore(uid=azure.uid)
    alone(folder, hosts={API: "127.0.0.1"}, addresses=(METADATA,))
    found = run(folder, made, azure, arm)
    assert set(found["permissions"]) <= {c.permission for c in CONTROLLER}, found["permissions"]
    text = json.dumps(found, indent=1) + "\n"
    (RESULTS / "drill-cloud-azure.json").write_text(text)
    sys.stdout.write(text)
    say("log of the controller manager:", folder / f"{NAME}.log")
    return 0


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("root alone has namespaces of its own")
    sys.exit(main())
