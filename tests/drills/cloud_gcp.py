"""Google's own disk driver at work, built from source, against a Google Cloud of ours (root).

    make drill-cloud-gcp

In a network that leads nowhere: a real API server with the objects of a release, Compute Engine and
the metadata server under their real names and address. The program runs twice, as controller and as
the driver of a node, each with its container's own arguments; it is asked over its sockets as the
sidecars and kubelet ask. Seen: a volume made, made again, attached to a machine, detached, made
larger, removed; what a node says of itself; that no right beyond the table is needed, that without
one a volume is refused; and every call.
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

from constellation.base import proc
from constellation.base.progress import silent
from constellation.config.workspace import cache_folder
from constellation.kube.cloud_objects import check_objects
from constellation.providers.gcp.component_calls import DRIVER
from constellation.releases import lock as locks
from constellation.releases.cloud_components import ensure_component
from constellation.releases.toolchain import ensure_toolchain
from tests.drills.bare_api import NOBODY, BareApi, alone, container_of
from tests.drills.csi import ACCESS, CLAIM, Driver
from tests.drills.false_cloud import METADATA, serving
from tests.drills.loaded import RESULTS, say
from tests.fakes.compute_store import ComputeStore
from tests.fakes.gce import PROJECT, ZONE, FakeGce

if TYPE_CHECKING:
    from constellation.releases.cloud_components import Component

NAME, REGISTRY = "gce-pd-csi-driver", "example.test"
API, NAMES = "compute.googleapis.com", ("metadata.google.internal",)
GIB = 2**30
_START_S, _TEST_S = 60.0, 300.0


async def run(folder: Path, made: Component, cloud: FakeGce, compute: ComputeStore) -> Any:
    """Do all of it; give what was seen."""
    check_objects(made.objects)
    objects = json.loads(made.objects)["items"]
    locked = locks.load().clouds["gcp"].source[NAME]
    compute.instances[cloud.me] = {}
    with (
        serving(
            folder, names=(API,), api=compute.app(), metadata=cloud.metadata.app()
        ) as authority,
        BareApi.started(folder, cache=cache_folder()) as api,
    ):
        api.apply(*objects)
        said = {}
        for kind in ("controller", "node"):
            api.folder_of(kind)
            arguments = [
                re.sub(r"unix:/.*/", f"unix:{folder}/{kind}/", a).replace(
                    "$(KUBE_NODE_NAME)", "worker-default-0"
                )
                for a in container_of(objects, f"gce-pd-csi-{kind}", NAME)["args"]
            ]
            said[kind] = api.start(
                f"{NAME}-{kind}",
                api.store.path(locked.sha256),
                *arguments,
                user=NOBODY if kind == "controller" else None,
                SSL_CERT_FILE=str(authority),
            )
        try:
            async with Driver.at(folder / "controller/csi.sock", seconds=_START_S) as controller:
                volume = await _volume(controller, cloud, compute)
            async with Driver.at(folder / "node/csi.sock", seconds=_START_S) as node:
                itself = await node.call("Node/NodeGetInfo")
        except BaseException:
            for log in said.values():
                say(log.read_text()[-5000:])
            raise
        assert itself["node_id"] == f"projects/{PROJECT}/zones/{ZONE}/instances/{cloud.me}"
        assert itself["accessible_topology"] == volume["accessible_topology"][0]
        assert not compute.unknown, compute.unknown
        assert compute.refused == {"compute.disks.create"}
        return {
            "image": next(i.reference for i in made.images if f"/{NAME}:" in i.reference),
            "program": locked.sha256,
            "node": itself,
            "permissions": sorted(compute.permissions),
            "calls": sorted({_shape(m, p) for m, p in compute.requests}),
        }


async def _volume(controller: Driver, cloud: FakeGce, compute: ComputeStore) -> dict[str, Any]:
    """Follow a volume from its claim to its end."""
    topology = {"segments": {"topology.gke.io/zone": ZONE}}
    wanted: dict[str, Any] = {
        "name": "pvc-0c5b7f0e-0000-4000-8000-000000000001",
        "capacity_range": {"required_bytes": 10 * GIB},
        "volume_capabilities": [ACCESS],
        "parameters": {"type": "pd-balanced", **CLAIM},
        "accessibility_requirements": {"requisite": [topology], "preferred": [topology]},
    }
    compute.refuse = {"compute.disks.create"}
    try:
        await controller.call("Controller/CreateVolume", **wanted)
    except GRPCError as error:
        say("without the right to make disks:", str(error.message)[:120])
    else:
        raise AssertionError("a disk was made without the right to")
    compute.refuse = set()
    volume: dict[str, Any] = (await controller.call("Controller/CreateVolume", **wanted))["volume"]
    again = await controller.call("Controller/CreateVolume", **wanted)
    assert again["volume"] == volume
    (disk,) = compute.disks.values()
    assert (disk["sizeGb"], disk["type"].rpartition("/")[2]) == ("10", "pd-balanced"), disk
    where = {
        "volume_id": volume["volume_id"],
        "node_id": f"projects/{PROJECT}/zones/{ZONE}/instances/{cloud.me}",
    }
    await controller.call("Controller/ControllerPublishVolume", **where, volume_capability=ACCESS)
    assert list(compute.instances[cloud.me].values()) == [wanted["name"]]
    await controller.call("Controller/ControllerUnpublishVolume", **where)
    assert compute.instances[cloud.me] == {}
    larger = {"volume_id": volume["volume_id"], "capacity_range": {"required_bytes": 20 * GIB}}
    await controller.call("Controller/ControllerExpandVolume", **larger, volume_capability=ACCESS)
    assert compute.disks[wanted["name"]]["sizeGb"] == "20"
    await controller.call("Controller/DeleteVolume", volume_id=volume["volume_id"])
    assert not compute.disks
    await controller.call("Controller/DeleteVolume", volume_id=volume["volume_id"])
    return volume


def _shape(method: str, path: str) -> str:
    parts = path.split("/projects/")[1].split("/")[1:]
    parts[1::2] = ["*"] * len(parts[1::2])
    if parts[:1] == ["zones"] and len(parts) > 4:
        parts[4] = path.rpartition("/")[2]  # what is done to it
    return f"{method} {'/'.join(parts)}"


async def _small_program() -> None:
    """Run the tests of the program that the driver asks for a disk's name."""
    go = await ensure_toolchain(locks.load().toolchain, cache=cache_folder(), report=silent)
    module = locks.artifacts_folder() / "google-nvme-id"
    await proc.run(go.go, "test", "./...", env=go.environment, cwd=module, timeout_s=_TEST_S)


def main() -> int:
    """Run it; 0 if all was seen."""
    folder = Path(tempfile.mkdtemp(prefix="drill-gcp-"))
    made = asyncio.run(
        ensure_component("gcp", registry=REGISTRY, cache=cache_folder(), report=silent)
    )
    asyncio.run(_small_program())
    names = dict.fromkeys(NAMES, METADATA) | {API: "127.0.0.1"}
    alone(folder, hosts=names, addresses=(METADATA,))
    found = asyncio.run(run(folder, made, FakeGce(), ComputeStore()))
    allowed = {c.permission for c in DRIVER} | {p for c in DRIVER for p in c.linked}
    assert set(found["permissions"]) <= allowed, found["permissions"]
    text = json.dumps(found, indent=1) + "\n"
    (RESULTS / "drill-cloud-gcp.json").write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("root alone has namespaces of its own")
    sys.exit(main())
