"""The part of the OpenStack drill that is storage: a claim's volume from its making to its removal.

Driver, sidecars and registrar are the release's. What the cloud's hardware does when a volume is
attached, grown or detached is played by loop devices (tests/cluster/plugged.py): they appear under
the name that udev gives a virtio disk with Cinder's serial number. Node plugins have no credential:
they learn who they are from Nova's metadata service, which is played too, for their group alone,
since the local cloud answers at the same address.
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

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.cluster.conftest import Workspace
    from tests.drills.cloud_openstack import Stage

__all__ = ["Machines", "run_storage", "storage_logs"]

DRIVER, CONTROLLER, NODE = "cinder.csi.openstack.org", "cinder-csi-controller", "cinder-csi-node"
CLASS = "openstack-can-read"
GROUP = 4711
"""As which the node plugins of this drill ask for metadata."""
_GIB = 2**30


@dataclass(kw_only=True)
class Machines:
    """What OpenStack's machines would show: each attached volume as a virtio disk."""

    workspace: Workspace
    folder: Path
    nodes: dict[str, pb.Node] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    plugged: dict[str, tuple[str, str]] = field(default_factory=dict)

    def attach(self, server: str, volume: str, size_gb: int) -> str:
        """Plug a volume in; gives the name that Nova would say."""
        if volume not in self.disks:
            self.disks[volume] = Disk.make(self.folder / volume, size_bytes=size_gb * _GIB)
        name = f"/dev/vd{'cdefgh'[len(self.plugged)]}"
        node = self.nodes[server]
        self.disks[volume].plug(self.workspace, node, name)
        inside(node.pid, "mkdir", "-p", "/dev/disk/by-id")
        inside(node.pid, "ln", "-s", name, _by_id(volume))
        self.plugged[volume] = (server, name)
        return name

    def grow(self, volume: str, size_gb: int) -> None:
        """Let the machine see a larger disk."""
        self.disks[volume].grow(size_gb * _GIB)

    def detach(self, server: str, volume: str) -> None:
        """Take a volume out."""
        was, name = self.plugged.pop(volume)
        assert was == server
        inside(self.nodes[server].pid, "rm", "-f", _by_id(volume))
        self.disks[volume].unplug(self.workspace, self.nodes[server], name)

    def close(self) -> None:
        """Take away what is left."""
        for volume, (server, _) in tuple(self.plugged.items()):
            self.detach(server, volume)
        for disk in self.disks.values():
            disk.close()


def _by_id(volume: str) -> str:
    # virtio has room for 20 bytes of a serial number
    return f"/dev/disk/by-id/virtio-{volume[:20]}"


def run_storage(stage: Stage, machines: Machines) -> dict[str, Any]:
    """Do all of it; give what is worth keeping."""
    load_writer(stage, machines.folder)
    try:
        _metadata(stage, machines)
        stage.wait("the driver is known on the worker", lambda: _known(stage) == 1, seconds=180)
        stage.kubectl("apply", "-f", "-", stdin=claim(FIRST_GIB, CLASS))
        script = f"echo {TEXT} > /kept/text && busybox sync"
        stage.kubectl("apply", "-f", "-", stdin=pod("writer", script=script))
        stage.wait(
            "a pod on the worker has its volume", lambda: _runs(stage, "writer"), seconds=180
        )
        stage.wait("it has written", lambda: reads(stage, "writer") == TEXT, seconds=20)
        kept = _as_asked(stage, machines)
        _grows(stage)
        _moves(stage, machines)
        _goes(stage)
    except BaseException:
        explain(stage, storage_logs(stage))
        raise
    return kept


def storage_logs(stage: Stage) -> str:
    """Give what all containers of the driver have said."""
    words = ("-n", "kube-system", "logs", "--all-containers", "--prefix", "--tail=-1")
    found = [stage.workspace.kubectl(*words, "-l", f"app={app}") for app in (CONTROLLER, NODE)]
    return "".join(f.stdout + f.stderr for f in found)


def _metadata(stage: Stage, machines: Machines) -> None:
    """Let node plugins reach the played metadata service, and nobody else."""
    port = stage.stack.url.rpartition(":")[2]
    rules = f"""table ip drill {{
  chain out {{
    type nat hook output priority -100
    meta skgid {GROUP} ip daddr 169.254.169.254 tcp dport 80 dnat to 10.42.0.1:{port}
  }}
}}
"""
    for server, node in machines.nodes.items():
        stage.stack.addresses[node.address] = server
        said = inside(node.pid, "nft", "-f", "-", stdin=rules)
        assert not said, said
    spec = {"securityContext": {"runAsUser": 0, "runAsGroup": GROUP}}
    patch = {"spec": {"template": {"spec": spec}}}
    stage.kubectl("-n", "kube-system", "patch", "daemonset", NODE, "-p", json.dumps(patch))


def _known(stage: Stage) -> int:
    listed = json.loads(stage.kubectl("get", "csinodes", "-o", "json"))["items"]
    drivers = [d for node in listed for d in node["spec"].get("drivers") or ()]
    return sum(d["name"] == DRIVER and d["nodeID"] in stage.machines.values() for d in drivers)


def _runs(stage: Stage, pod: str) -> bool:
    return stage.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") == "Running"


def _as_asked(stage: Stage, machines: Machines) -> dict[str, Any]:
    """See what was made at Cinder, and on the worker's disk."""
    (volume,) = stage.stack.cloud.volumes.values()
    assert (volume["size"], volume["status"]) == (FIRST_GIB, "in-use"), volume
    assert volume["attachments"][0]["server_id"] == stage.machines["worker"]
    (disk,) = machines.disks.values()
    kind = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "TYPE", str(disk.device)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert kind == "ext4"
    return {"metadata": volume["metadata"] | {}, "file_system": kind}


def _grows(stage: Stage) -> None:
    """Ask for more while the pod runs: volume and file system grow."""
    before = size(stage, "writer")
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
    (volume,) = stage.stack.cloud.volumes.values()
    assert volume["size"] == THEN_GIB, volume


def _moves(stage: Stage, machines: Machines) -> None:
    """Let another pod have it: detached, attached again, the text is there."""
    stage.kubectl("delete", "pod", "writer", "--timeout=60s")
    stage.wait("it is detached", lambda: not machines.plugged, seconds=120)
    mounted = inside(machine(stage.workspace, "worker").pid, "cat", "/proc/self/mountinfo")
    # this machine's own disks may be virtio disks as well, with other names
    assert "/dev/vdc" not in mounted
    if not may_resize():
        (disk,) = machines.disks.values()
        disk.resize_file_system()
    stage.kubectl("apply", "-f", "-", stdin=pod("reader", script="true"))
    stage.wait("another pod has it", lambda: _runs(stage, "reader"), seconds=180)
    assert _known(stage) == 1, "a control plane has a node plugin"
    assert reads(stage, "reader") == TEXT
    assert size(stage, "reader") > FIRST_GIB * 2**20


def _goes(stage: Stage) -> None:
    """Delete pod and claim: nothing is left at Cinder."""
    stage.kubectl("delete", "pod", "reader", "--timeout=60s")
    stage.kubectl("delete", "pvc", "kept", "--timeout=60s")
    stage.wait("nothing of the claim is left", lambda: not stage.stack.cloud.volumes, seconds=120)
    stage.wait("its objects are gone", lambda: not objects(stage), seconds=30)
