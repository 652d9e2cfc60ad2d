"""A claim and the pods that use it: what the storage parts of the clouds' drills share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.drills.loaded import say
from tests.fakes.user_image import write_archive

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = [
    "FIRST_GIB",
    "TEXT",
    "THEN_GIB",
    "Asked",
    "claim",
    "conditions",
    "explain",
    "load_writer",
    "may_resize",
    "objects",
    "pod",
    "reads",
    "size",
]

_IMAGE = "example.test/writer:1"
_SYS_RESOURCE = 24  # CAP_SYS_RESOURCE, linux/capability.h
FIRST_GIB, THEN_GIB = 1, 2
TEXT = "kept across pods"


class Asked(Protocol):
    """A drill's cluster: `kubectl` gives what was printed, and takes no failure."""

    @property
    def workspace(self) -> Workspace: ...

    def kubectl(self, *words: str, stdin: str = "") -> str: ...


def load_writer(stage: Asked, folder: Path) -> None:
    """Give the image of the pods to the cluster's registry."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    archive = folder / "writer.tar"
    write_archive(archive, reference=_IMAGE, busybox=Path(busybox))
    loaded = stage.workspace.constellation("mini", "load-image", str(archive))
    assert loaded.returncode == 0, loaded.stderr


def claim(gib: int, storage_class: str) -> str:
    """Give the claim, for so many GiB of a class."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": f"{gib}Gi"}},
    }
    metadata = {"name": "kept"}
    kind = "PersistentVolumeClaim"
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})


def pod(name: str, *, script: str) -> str:
    """Give a pod that has the claim at /kept, and does `script` first."""
    container = {
        "name": "it",
        "image": _IMAGE,
        "command": ["/bin/sh", "-c", f"{script}; exec sleep 3600"],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def reads(stage: Asked, pod: str) -> str:
    """Give what was written, as a pod reads it."""
    return stage.workspace.kubectl("exec", pod, "--", "cat", "/kept/text").stdout.strip()


def size(stage: Asked, pod: str) -> int:
    """Give the size of the pod's file system in KiB."""
    done = stage.workspace.kubectl("exec", pod, "--", "busybox", "df", "-k", "/kept")
    return int(done.stdout.splitlines()[-1].split()[1]) if done.returncode == 0 else 0


def conditions(stage: Asked) -> str:
    """Give what the claim says of itself."""
    return stage.kubectl("get", "pvc", "kept", "-o", "jsonpath={.status.conditions}")


def objects(stage: Asked) -> list[Any]:
    """Give what is there of volumes and their attachments."""
    found: list[Any] = json.loads(stage.kubectl("get", "pv,volumeattachments", "-o", "json"))[
        "items"
    ]
    return found


def may_resize() -> bool:
    """Say whether this machine has what the kernel asks for to grow a mounted file system.

    Source: fs/ext4/resize.c, ext4_resize_begin: CAP_SYS_RESOURCE. Where a machine is itself
    confined, no node on it has that; the drill then lets an administrator grow it off-line.
    """
    status = Path("/proc/self/status").read_text()
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _SYS_RESOURCE & 1)


def explain(stage: Asked, logs: str) -> None:
    """Say what there is to say of a run that failed."""
    for words in (
        ("get", "pods,pvc,pv,volumeattachments,csinodes", "-A", "-o", "wide"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    ):
        say(stage.workspace.kubectl(*words).stdout[-8000:])
    say(logs[-16000:])
