"""The part of the OpenStack drill that is storage: a claim's volume from its making to its removal.

Driver, sidecars and registrar are the release's. What the cloud's hardware does when a volume is
attached, grown or detached is played by loop devices (tests/cluster/plugged.py): they appear under
the name that udev gives a virtio disk with Cinder's serial number. Node plugins have no credential:
they learn who they are from Nova's metadata service, which is played too, for their group alone,
since the local cloud answers at the same address.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.machines import inside, machine
from tests.cluster.plugged import Disk
from tests.drills.cloud_aws_storage import may_resize
from tests.drills.loaded import say
from tests.fakes.user_image import write_archive

if TYPE_CHECKING:
    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.cluster.conftest import Workspace
    from tests.drills.cloud_openstack import Stage

__all__ = ["Machines", "run_storage", "storage_logs"]

DRIVER, CONTROLLER, NODE = "cinder.csi.openstack.org", "cinder-csi-controller", "cinder-csi-node"
IMAGE, CLASS = "example.test/writer:1", "openstack-can-read"
GROUP = 4711
"""As which the node plugins of this drill ask for metadata."""
_GIB = 2**30
_FIRST_GIB, _THEN_GIB = 1, 2
_TEXT = "kept across pods"


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
    _load_writer(stage, machines.folder)
    try:
        _metadata(stage, machines)
        stage.wait("the driver is known on the worker", lambda: _known(stage) == 1, seconds=180)
        stage.kubectl("apply", "-f", "-", stdin=_claim(_FIRST_GIB))
        script = f"echo {_TEXT} > /kept/text && busybox sync"
        stage.kubectl("apply", "-f", "-", stdin=_pod("writer", script=script))
        stage.wait(
            "a pod on the worker has its volume", lambda: _runs(stage, "writer"), seconds=180
        )
        stage.wait("it has written", lambda: _reads(stage, "writer") == _TEXT, seconds=20)
        kept = _as_asked(stage, machines)
        _grows(stage)
        _moves(stage, machines)
        _goes(stage)
    except BaseException:
        _explain(stage)
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


def _load_writer(stage: Stage, folder: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    archive = folder / "writer.tar"
    write_archive(archive, reference=IMAGE, busybox=Path(busybox))
    loaded = stage.workspace.constellation("mini", "load-image", str(archive))
    assert loaded.returncode == 0, loaded.stderr


def _known(stage: Stage) -> int:
    listed = json.loads(stage.kubectl("get", "csinodes", "-o", "json"))["items"]
    drivers = [d for node in listed for d in node["spec"].get("drivers") or ()]
    return sum(d["name"] == DRIVER and d["nodeID"] in stage.machines.values() for d in drivers)


def _claim(gib: int) -> str:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": CLASS,
        "resources": {"requests": {"storage": f"{gib}Gi"}},
    }
    metadata = {"name": "kept"}
    kind = "PersistentVolumeClaim"
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})


def _pod(name: str, *, script: str) -> str:
    container = {
        "name": "it",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", f"{script}; exec sleep 3600"],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def _runs(stage: Stage, pod: str) -> bool:
    return stage.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") == "Running"


def _reads(stage: Stage, pod: str) -> str:
    return stage.workspace.kubectl("exec", pod, "--", "cat", "/kept/text").stdout.strip()


def _size(stage: Stage, pod: str) -> int:
    """Give the size of the pod's file system in KiB."""
    done = stage.workspace.kubectl("exec", pod, "--", "busybox", "df", "-k", "/kept")
    return int(done.stdout.splitlines()[-1].split()[1]) if done.returncode == 0 else 0


def _as_asked(stage: Stage, machines: Machines) -> dict[str, Any]:
    """See what was made at Cinder, and on the worker's disk."""
    (volume,) = stage.stack.cloud.volumes.values()
    assert (volume["size"], volume["status"]) == (_FIRST_GIB, "in-use"), volume
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
    before = _size(stage, "writer")
    stage.kubectl("apply", "-f", "-", stdin=_claim(_THEN_GIB))
    if may_resize():
        stage.wait(
            "the pod's file system has grown",
            lambda: _size(stage, "writer") > before * 1.8,
            seconds=180,
        )
    else:
        stage.wait(
            "the kernel refuses a file system's growth here, and the claim says so",
            lambda: "Permission denied to resize filesystem" in _conditions(stage),
            seconds=180,
        )
    (volume,) = stage.stack.cloud.volumes.values()
    assert volume["size"] == _THEN_GIB, volume


def _conditions(stage: Stage) -> str:
    return stage.kubectl("get", "pvc", "kept", "-o", "jsonpath={.status.conditions}")


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
    stage.kubectl("apply", "-f", "-", stdin=_pod("reader", script="true"))
    stage.wait("another pod has it", lambda: _runs(stage, "reader"), seconds=180)
    assert _known(stage) == 1, "a control plane has a node plugin"
    assert _reads(stage, "reader") == _TEXT
    assert _size(stage, "reader") > _FIRST_GIB * 2**20


def _goes(stage: Stage) -> None:
    """Delete pod and claim: nothing is left at Cinder."""
    stage.kubectl("delete", "pod", "reader", "--timeout=60s")
    stage.kubectl("delete", "pvc", "kept", "--timeout=60s")
    stage.wait("nothing of the claim is left", lambda: not stage.stack.cloud.volumes, seconds=120)
    stage.wait("its objects are gone", lambda: not _objects(stage), seconds=30)


def _objects(stage: Stage) -> list[Any]:
    found: list[Any] = json.loads(stage.kubectl("get", "pv,volumeattachments", "-o", "json"))[
        "items"
    ]
    return found


def _explain(stage: Stage) -> None:
    """Say what there is to say of a run that failed."""
    for words in (
        ("get", "pods,pvc,pv,volumeattachments,csinodes", "-A", "-o", "wide"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    ):
        say(stage.workspace.kubectl(*words).stdout[-8000:])
    say(storage_logs(stage)[-16000:])
