"""The part of the AWS drill that is storage: a claim's volume from its making to its removal.

The driver, its sidecars and our registrar are the release's. AWS is moto's; what its hardware does
when a volume is attached, grown or detached is played by loop devices (tests/cluster/plugged.py).
A pod on the worker writes, another reads: in between the volume is detached, and attached again.
Control planes have no node plugin, and mount none of these volumes.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster.machines import inside, machine
from tests.cluster.plugged import Disk
from tests.drills.claims import (
    FIRST_GIB,
    TEXT,
    THEN_GIB,
    claim,
    conditions,
    explain,
    load_writer,
    may_resize,
    objects,
    pod,
    reads,
    size,
)
from tests.fakes.aws_world import REGION

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.drills.cloud_aws import Stage

__all__ = ["CONTROLLER", "label_nodes", "logs_of", "run_storage"]

DRIVER, CONTROLLER, NODE = "ebs.csi.aws.com", "ebs-csi-controller", "ebs-csi-node"
TAG = "ebs.csi.aws.com/cluster"
CLASS = "aws-holds-the-key"
_GIB = 2**30


@dataclass(kw_only=True)
class Hardware:
    """What AWS' machines would show: each attached volume as a device of its machine."""

    stage: Stage
    folder: Path
    nodes: dict[str, pb.Node]
    disks: dict[str, Disk] = field(default_factory=dict)
    plugged: dict[str, tuple[str, str]] = field(default_factory=dict)

    def look(self) -> None:
        """Plug in what AWS says is attached, and take out what it says is not."""
        volumes = {v["VolumeId"]: v for v in volumes_of(self.stage)}
        for volume_id, volume in volumes.items():
            attached = [(a["InstanceId"], a["Device"]) for a in volume["Attachments"]]
            wanted = attached[0] if attached else None
            before = self.plugged.get(volume_id)
            if before and before != wanted:
                self._disk(volume).unplug(self.stage.workspace, self.nodes[before[0]], before[1])
                del self.plugged[volume_id]
            if wanted and before != wanted:
                self._disk(volume).plug(self.stage.workspace, self.nodes[wanted[0]], wanted[1])
                self.plugged[volume_id] = wanted
        for volume_id in [v for v in self.disks if v not in volumes]:
            self.disks.pop(volume_id).close()

    def grow(self, size_bytes: int) -> None:
        """Let the one volume be larger; its file system does not grow of that."""
        (disk,) = self.disks.values()
        disk.grow(size_bytes)

    def close(self) -> None:
        """Take away what is left."""
        for volume_id, (instance, name) in self.plugged.items():
            self.disks[volume_id].unplug(self.stage.workspace, self.nodes[instance], name)
        for disk in self.disks.values():
            disk.close()

    def _disk(self, volume: dict[str, Any]) -> Disk:
        volume_id: str = volume["VolumeId"]
        if volume_id not in self.disks:
            file = self.folder / volume_id
            self.disks[volume_id] = Disk.make(file, size_bytes=volume["Size"] * _GIB)
        return self.disks[volume_id]


def volumes_of(stage: Stage) -> list[dict[str, Any]]:
    """Give the volumes that the driver made."""
    filters = {"Filters": [{"Name": f"tag:{TAG}", "Values": ["true"]}]}
    found: list[dict[str, Any]] = stage.aws("ec2", "describe_volumes", json.dumps(filters))[
        "Volumes"
    ]
    return found


def label_nodes(stage: Stage, machine_type: str) -> None:
    """Let every Node say where it is, as kubelet does on AWS (providers.placement)."""
    labels = {
        "topology.kubernetes.io/region": REGION,
        "topology.kubernetes.io/zone": f"{REGION}a",
        "node.kubernetes.io/instance-type": machine_type,
    }
    words = [f"{name}={value}" for name, value in labels.items()]
    stage.kubectl("label", "nodes", "--all", *words)


def run_storage(stage: Stage, machines: dict[str, list[Any]], folder: Path) -> dict[str, Any]:
    """Do all of it; give what is worth keeping."""
    load_writer(stage, folder)
    nodes = {
        machines[role][0]: machine(stage.workspace, role) for role in ("control-plane", "worker")
    }
    hardware = Hardware(stage=stage, folder=folder, nodes=nodes)
    try:
        stage.wait("the driver is known on the worker", lambda: _known(stage) == 1, seconds=180)
        _first_pod(stage, hardware)
        volume = _as_asked(stage, hardware)
        _grows(stage, hardware)
        _moves(stage, hardware)
        _goes(stage, hardware)
    except BaseException:
        explain(stage, logs_of(stage))
        raise
    finally:
        hardware.close()
    return volume


def logs_of(stage: Stage) -> str:
    """Give what all containers of the driver have said."""
    words = ("-n", "kube-system", "logs", "--all-containers", "--prefix", "--tail=-1")
    found = [stage.workspace.kubectl(*words, "-l", f"app={app}") for app in (CONTROLLER, NODE)]
    return "".join(f.stdout + f.stderr for f in found)


def _known(stage: Stage) -> int:
    listed = json.loads(stage.kubectl("get", "csinodes", "-o", "json"))["items"]
    drivers = [d for node in listed for d in node["spec"].get("drivers") or ()]
    return sum(d["name"] == DRIVER for d in drivers)


def _runs(stage: Stage, hardware: Hardware, pod: str) -> bool:
    hardware.look()
    return stage.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") == "Running"


def _first_pod(stage: Stage, hardware: Hardware) -> None:
    """Make a claim and a pod: a volume is made, attached, formatted, mounted, written."""
    stage.kubectl("apply", "-f", "-", stdin=claim(FIRST_GIB, CLASS))
    script = f"echo {TEXT} > /kept/text && busybox sync"
    stage.kubectl("apply", "-f", "-", stdin=pod("writer", script=script))
    stage.wait(
        "a pod on the worker has its volume", lambda: _runs(stage, hardware, "writer"), seconds=180
    )
    stage.wait("it has written", lambda: reads(stage, "writer") == TEXT, seconds=20)


def _as_asked(stage: Stage, hardware: Hardware) -> dict[str, Any]:
    """See what was made at AWS, and on the worker's disk."""
    (volume,) = volumes_of(stage)
    tags = {t["Key"]: t["Value"] for t in volume["Tags"]}
    assert volume["Encrypted"] is True, volume
    assert (volume["Size"], volume["VolumeType"]) == (FIRST_GIB, "gp3"), volume
    assert tags[TAG] == "true"
    assert tags["kubernetes.io/created-for/pvc/name"] == "kept"
    (disk,) = hardware.disks.values()
    kind = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "TYPE", str(disk.device)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert kind == "ext4"
    return {
        "tags": sorted(tags),
        "type": volume["VolumeType"],
        "file_system": kind,
        "grown": "by the node" if may_resize() else "off-line: no CAP_SYS_RESOURCE here",
    }


def _grows(stage: Stage, hardware: Hardware) -> None:
    """Ask for more while the pod runs: volume and file system grow."""
    before = size(stage, "writer")
    hardware.grow(THEN_GIB * _GIB)
    assert size(stage, "writer") == before
    stage.kubectl("apply", "-f", "-", stdin=claim(THEN_GIB, CLASS))
    if may_resize():
        stage.wait(
            "the pod's file system has grown",
            lambda: size(stage, "writer") > before * 1.8,
            seconds=180,
        )
    else:
        stage.wait(
            "the kernel refuses a file system's growth here, and the claim says so",
            lambda: "Permission denied to resize filesystem" in conditions(stage),
            seconds=180,
        )
    (volume,) = volumes_of(stage)
    assert volume["Size"] == THEN_GIB, volume


def _moves(stage: Stage, hardware: Hardware) -> None:
    """Let another pod have it: detached, attached again, the text is there."""
    stage.kubectl("delete", "pod", "writer", "--timeout=60s")
    stage.wait("it is detached", lambda: _detached(hardware), seconds=120)
    mounted = inside(machine(stage.workspace, "worker").pid, "cat", "/proc/self/mountinfo")
    assert "/dev/xvd" not in mounted
    if not may_resize():
        (disk,) = hardware.disks.values()
        disk.resize_file_system()
    stage.kubectl("apply", "-f", "-", stdin=pod("reader", script="true"))
    stage.wait("another pod has it", lambda: _runs(stage, hardware, "reader"), seconds=180)
    assert _known(stage) == 1, "a control plane has a node plugin"
    assert reads(stage, "reader") == TEXT
    assert size(stage, "reader") > FIRST_GIB * 2**20
    stage.wait(
        "the claim has what it asked for",
        lambda: _capacity(stage) == f"{THEN_GIB}Gi",
        seconds=120,
    )


def _detached(hardware: Hardware) -> bool:
    hardware.look()
    return not hardware.plugged


def _capacity(stage: Stage) -> str:
    return stage.kubectl("get", "pvc", "kept", "-o", "jsonpath={.status.capacity.storage}")


def _goes(stage: Stage, hardware: Hardware) -> None:
    """Delete pod and claim: nothing is left at AWS."""
    stage.kubectl("delete", "pod", "reader", "--timeout=60s")
    stage.kubectl("delete", "pvc", "kept", "--timeout=60s")
    stage.wait("nothing of the claim is left", lambda: _gone(stage, hardware), seconds=120)
    stage.wait("its objects are gone", lambda: not objects(stage), seconds=30)


def _gone(stage: Stage, hardware: Hardware) -> bool:
    hardware.look()
    return not volumes_of(stage)
