"""A disk that a cloud would show one of its machines: a loop device, put into a local node.

What the cloud's hardware does is played here: the disk appears under a name in the node's /dev and
may be used by the node from then on, it grows, it is taken away again. The node, and whatever runs
in it, makes nothing of this itself.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.providers.local.daemon.cgroups import Cgroups
from constellation.providers.local.daemon.layout import Layout

if TYPE_CHECKING:
    from constellation.rpc.stubs import daemon_pb2 as pb
    from tests.cluster.conftest import Workspace

__all__ = ["Disk"]

_NAME = re.compile(r"/dev/[a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk: its sparse file on this machine, and the loop device over it."""

    file: Path
    device: Path

    @classmethod
    def make(cls, file: Path, *, size_bytes: int) -> Disk:
        """Make an empty one; `close` gives the loop device back."""
        with file.open("xb") as made:
            made.truncate(size_bytes)
        return cls(file=file, device=Path(_run("losetup", "--find", "--show", str(file)).strip()))

    def grow(self, size_bytes: int) -> None:
        """Let it be larger, as a running machine sees it."""
        with self.file.open("r+b") as made:
            made.truncate(size_bytes)
        _run("losetup", "--set-capacity", str(self.device))

    def plug(self, workspace: Workspace, node: pb.Node, name: str) -> None:
        """Show it to a running node as `name` ("/dev/xvdaa")."""
        assert _NAME.fullmatch(name), name
        self._permit(workspace, node, "devices.allow")
        inside = ("nsenter", f"--target={node.pid}", "--mount")
        _run(*inside, "mknod", "-m", "660", name, "b", *self._numbers)

    def unplug(self, workspace: Workspace, node: pb.Node, name: str) -> None:
        """Take it away from that node."""
        assert _NAME.fullmatch(name), name
        _run("nsenter", f"--target={node.pid}", "--mount", "rm", "-f", name)
        self._permit(workspace, node, "devices.deny")

    def resize_file_system(self) -> None:
        """Grow its ext4 to the disk, off-line, as an administrator would: it is plugged nowhere."""
        _run("e2fsck", "-f", "-p", str(self.device))
        _run("resize2fs", str(self.device))

    def close(self) -> None:
        """Give the loop device back, and the file."""
        _run("losetup", "--detach", str(self.device))
        self.file.unlink()

    @property
    def _numbers(self) -> tuple[str, str]:
        number = self.device.stat().st_rdev
        return str(os.major(number)), str(os.minor(number))

    def _permit(self, workspace: Workspace, node: pb.Node, file: str) -> None:
        """Write the device's rule into the machine's group and all groups below, from the top.

        Of cgroup v2 a machine's group has a program, which stays as it was loaded.
        """
        groups = Cgroups.find(Layout.of(workspace.uid).name).folders(node.instance_id)
        of_devices = [group for group in groups if (group / file).exists()]
        assert of_devices, "no cgroup v1 tree of devices here: no disk can be plugged in"
        line = f"b {':'.join(self._numbers)} rw"
        for folder, _, _ in os.walk(of_devices[0]):
            (Path(folder) / file).write_text(line)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout
