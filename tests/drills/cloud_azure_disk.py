"""Azure's own disk driver at work, built from source, against an Azure of ours (root).

    make drill-cloud-azure-disk

As `cloud_gcp`: a real API server with the objects of a release, Azure's resource manager and its
metadata service under their real names. The controller reads the cloud.conf that a control plane
writes, the driver of a node the one of the objects' ConfigMap. Seen: a volume made, attached to the
machine that the node says it is, detached, made larger, removed; that no right beyond the table is
needed, that without one a volume is refused; and every call.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpclib import GRPCError

from constellation.base.progress import silent
from constellation.config.workspace import cache_folder
from constellation.providers.azure.component_calls import DRIVER
from constellation.providers.azure.metadata import AzureMetadata
from constellation.releases import lock as locks
from constellation.releases.cloud_components import ensure_component
from constellation.services.bootstrapper.component_config import configure_components
from tests.drills.bare_api import NOBODY, BareApi, alone, container_of
from tests.drills.cloud_azure import API, REGISTRY, check_and_load, shape
from tests.drills.csi import ACCESS, CLAIM, Driver
from tests.drills.false_cloud import METADATA, serving
from tests.drills.loaded import RESULTS, say
from tests.fakes.arm import FakeAzure
from tests.fakes.arm_store import LOCATION, ArmStore

if TYPE_CHECKING:
    from constellation.releases.cloud_components import Component

NAME, GIB = "azuredisk-csi-driver", 2**30
_START_S = 60.0
_TOPOLOGY = {"segments": {"topology.disk.csi.azure.com/zone": f"{LOCATION}-1"}}


async def run(folder: Path, made: Component, azure: FakeAzure, arm: ArmStore) -> dict[str, Any]:
    """Do all of it; give what was seen."""
    objects = check_and_load(made.objects)
    locked = locks.load().clouds["azure"].source[NAME]
    scale_set, _, number = azure.me.rpartition("_")
    machine = arm.machine(scale_set, number)
    with (
        serving(folder, names=(API,), api=arm.app(), metadata=azure.imds.app()) as authority,
        BareApi.started(folder, cache=cache_folder()) as api,
    ):
        await configure_components(AzureMetadata(), folder=folder / "cloud", group=NOBODY)
        (config,) = (o["data"] for o in objects if o["kind"] == "ConfigMap")
        (folder / "configuration").mkdir()
        (folder / "configuration/cloud.conf").write_text(config["cloud.conf"])
        labels = {"node.kubernetes.io/instance-type": "Standard_DC4as_v5"}
        name = {"name": "worker-default-0", "labels": labels}
        api.apply(*objects, {"apiVersion": "v1", "kind": "Node", "metadata": name})
        said = {}
        for kind in ("controller", "node"):
            account, sockets = f"azuredisk-csi-{kind}", api.folder_of(kind)
            container = container_of(objects, account, NAME)
            (conf,) = (e["value"] for e in container["env"] if e["name"] == "AZURE_CREDENTIAL_FILE")
            said[kind] = api.start(
                f"{NAME}-{kind}",
                api.store.path(locked.sha256),
                *(
                    re.sub(r"unix:/.*/", f"unix://{sockets}/", a).replace(
                        "$(KUBE_NODE_NAME)", "worker-default-0"
                    )
                    for a in container["args"]
                ),
                f"--kubeconfig={api.kubeconfig_of(account)}",
                user=NOBODY if kind == "controller" else None,
                SSL_CERT_FILE=str(authority),
                AZURE_CREDENTIAL_FILE=f"{folder}{conf.replace('/node/', '/configuration/')}",
            )
        try:
            async with Driver.at(folder / "node/csi.sock", seconds=_START_S) as node:
                itself = await node.call("Node/NodeGetInfo")
            async with Driver.at(folder / "controller/csi.sock", seconds=_START_S) as controller:
                await _volume(controller, arm, machine=machine, node_id=itself["node_id"])
        except BaseException:
            for log in said.values():
                say(log.read_text()[-6000:])
            raise
        for log in said.values():
            assert not _unwanted(log.read_text()), log
        assert arm.refused == {"Microsoft.Compute/disks/write"}
        return {
            "image": next(i.reference for i in made.images if f"/{NAME}:" in i.reference),
            "program": locked.sha256,
            "node": itself,
            "permissions": sorted(arm.permissions),
            "calls": sorted({shape(m, p) for m, p in arm.requests}),
        }


def _unwanted(said: str) -> list[str]:
    """Give what it was refused, beside a Secret that it may not read, and a disk."""
    expected = ('secrets "azure-cloud-provider" is forbidden', "403 Forbidden")
    refused = [line for line in said.splitlines() if "forbidden" in line.lower()]
    return [line for line in refused if not any(words in line for words in expected)]


async def _volume(controller: Driver, arm: ArmStore, *, machine: str, node_id: str) -> None:
    """Follow a volume from its claim to its end."""
    wanted: dict[str, Any] = {
        "name": "pvc-0c5b7f0e-0000-4000-8000-000000000001",
        "capacity_range": {"required_bytes": 10 * GIB},
        "volume_capabilities": [ACCESS],
        "parameters": {"skuName": "StandardSSD_LRS", "cachingMode": "None", **CLAIM},
        "accessibility_requirements": {"requisite": [_TOPOLOGY], "preferred": [_TOPOLOGY]},
    }
    arm.refuse = {"Microsoft.Compute/disks/write"}
    try:
        await controller.call("Controller/CreateVolume", **wanted)
    except GRPCError as error:
        say("without the right to make disks:", str(error.message)[:120])
    else:
        raise AssertionError("a disk was made without the right to")
    arm.refuse = set()
    volume: dict[str, Any] = (await controller.call("Controller/CreateVolume", **wanted))["volume"]
    (disk,) = arm.of_kind("Microsoft.Compute/disks").values()
    assert (disk["properties"]["diskSizeGB"], disk["zones"]) == (10, ["1"]), disk
    where = {"volume_id": volume["volume_id"], "node_id": node_id}
    await controller.call("Controller/ControllerPublishVolume", **where, volume_capability=ACCESS)
    assert [d["name"] for d in _attached(arm, machine)] == [disk["name"]]
    await controller.call("Controller/ControllerUnpublishVolume", **where)
    assert _attached(arm, machine) == []
    larger = {"volume_id": volume["volume_id"], "capacity_range": {"required_bytes": 20 * GIB}}
    await controller.call("Controller/ControllerExpandVolume", **larger, volume_capability=ACCESS)
    (disk,) = arm.of_kind("Microsoft.Compute/disks").values()
    assert disk["properties"]["diskSizeGB"] == 20
    await controller.call("Controller/DeleteVolume", volume_id=volume["volume_id"])
    assert not arm.of_kind("Microsoft.Compute/disks")


def _attached(arm: ArmStore, machine: str) -> list[dict[str, Any]]:
    profile = arm.resources[machine.lower()]["properties"]["storageProfile"]
    disks: list[dict[str, Any]] = profile["dataDisks"]
    return disks


def main() -> int:
    """Run it; 0 if all was seen."""
    folder = Path(tempfile.mkdtemp(prefix="drill-azure-disk-"))
    made = asyncio.run(
        ensure_component("azure", registry=REGISTRY, cache=cache_folder(), report=silent)
    )
    azure = FakeAzure()
    alone(folder, hosts={API: "127.0.0.1"}, addresses=(METADATA,))
    found = asyncio.run(run(folder, made, azure, ArmStore(uid=azure.uid)))
    allowed = {c.permission for c in DRIVER} | {p for c in DRIVER for p in c.linked}
    assert set(found["permissions"]) <= allowed, found["permissions"]
    text = json.dumps(found, indent=1) + "\n"
    (RESULTS / "drill-cloud-azure-disk.json").write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("root alone has namespaces of its own")
    sys.exit(main())
