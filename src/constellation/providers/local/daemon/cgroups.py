"""The cloud's control groups, on cgroup v1 (one tree a controller) and v2 (one tree).

Each part of the cloud has its own group `NAME/PART`: processes are found and ended by it, and a
node's systemd gets the group, or one that nspawn makes in it, as the root of its own tree. On v2
the host's systemd owns the tree and has given us the group of a scope (`launch`): ours lie in it.
Sources: cgroups(7), Documentation/admin-guide/cgroup-v1/{cpusets,devices}.rst, cgroup-v2.rst;
systemd's docs/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.providers.local.daemon.bpf import attach_device_program
from constellation.providers.local.daemon.device_program import program
from constellation.providers.local.daemon.device_rules import refusals

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NODE_DEVICES", "Cgroups", "scope_name"]

_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)

NODE_DEVICES = (
    "c *:* m",
    "b *:* m",  # making a device node is no access to the device; runc asks for both
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 1:11 rw",  # kmsg
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console, which container runtimes allow by default
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
    "c 10:200 rwm",  # net/tun
    "c 10:229 rwm",  # fuse
)
"""What a node may touch; its state disk is added. Without this list CAP_MKNOD reads every disk."""


def scope_name(name: str) -> str:
    """Give the name of the unit that the cloud's processes are in, on a systemd host."""
    return f"{name}.scope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """The trees of this host (v2: one) and the cloud's folder in each, below the group `within`."""

    version: int
    trees: tuple[Path, ...]
    within: str
    name: str

    @classmethod
    def find(cls, name: str) -> Cgroups:
        """Read from /proc what is mounted; where systemd owns the tree, `within` is our scope.

        Raises:
            Unavailable: no cgroup tree with controllers is mounted.
        """
        v1: list[Path] = []
        v2 = None
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, point = right.split(" ")[0], Path(left.split(" ")[4])
            # a host may have mounted a tree twice; once is enough
            if kind == "cgroup" and point not in v1:
                v1.append(point)
            elif kind == "cgroup2":
                v2 = point
        if v1:
            # a v2 tree beside v1's has no controllers, but nspawn makes groups in it too
            both = (*v1, v2) if v2 is not None else tuple(v1)
            return cls(version=1, trees=both, within="", name=name)
        if v2 is None:
            raise Unavailable("no cgroup tree is mounted", hint="mount cgroup2 on /sys/fs/cgroup")
        scope = f"system.slice/{scope_name(name)}" if _SYSTEMD.is_dir() else ""
        return cls(version=2, trees=(v2,), within=scope, name=name)

    def given(self) -> bool:
        """Say whether the group that ours lie in is there; a scope goes with its last process."""
        return all((tree / self.within).is_dir() for tree in self.trees)

    def folders(self, part: str = "") -> tuple[Path, ...]:
        """Give the cloud's folder, or a part's, in every tree."""
        return tuple(tree / self.within / self.name / part for tree in self.trees)

    def ensure(self, part: str) -> None:
        """Make a part's group in every tree; where cpuset asks for it, with all CPUs and memory.

        Raises:
            Unavailable: the scope that it would lie in is not there.
        """
        if not self.given():
            raise Unavailable(
                f"there is no {self.within}", hint="start the daemon without --foreground"
            )
        for folder in self.folders(part):
            for level in (folder.parent, folder):
                level.mkdir(exist_ok=True)
                for name in ("cpuset.cpus", "cpuset.mems"):
                    file = level / name
                    if self.version == 1 and file.exists() and not file.read_text().strip():
                        file.write_text((level.parent / name).read_text())
            if self.version == 2:  # noqa: PLR2004 - the version
                _delegate(folder.parent)

    def restrict_devices(self, part: str, rules: Iterable[str]) -> None:
        """Deny a part every device but these, by rules (v1) or a program (v2).

        The part has no group below it yet.

        Raises:
            Unavailable: the kernel takes no program.
        """
        if self.version == 2:  # noqa: PLR2004 - the version
            (group,) = self.folders(part)
            attach_device_program(group, program(rules))
            return
        for folder in self.folders(part):
            if (folder / "devices.deny").exists():
                _restrict(folder, tuple(rules))

    def enter(self, part: str) -> None:
        """Move the calling process there; for use between fork and exec as well."""
        for folder in self.folders(part):
            (folder / "cgroup.procs").write_text("0")

    def leave(self) -> None:
        """Move the calling process to the root of each tree, so that its group can be removed.

        On v2 only a leaf and the root itself may have processes, so it is not our scope.
        """
        for tree in self.trees:
            (tree / "cgroup.procs").write_text("0")

    def parts(self) -> tuple[str, ...]:
        """List the parts that exist in any tree."""
        names = {
            entry.name
            for folder in self.folders()
            if folder.is_dir()
            for entry in folder.iterdir()
            if entry.is_dir()
        }
        return tuple(sorted(names))

    def processes(self, part: str = "") -> tuple[int, ...]:
        """List all processes in a part and in everything below it."""
        pids: set[int] = set()
        for top in self.folders(part):
            for folder, _, _ in os.walk(top):
                with contextlib.suppress(OSError):
                    pids.update(map(int, (Path(folder) / "cgroup.procs").read_text().split()))
        return tuple(sorted(pids))

    async def kill(self, part: str, *, deadline_s: float) -> None:
        """Kill everything in a part but ourselves.

        Raises:
            Unavailable: a process is still there at the deadline.
        """
        end = asyncio.get_running_loop().time() + deadline_s
        while pids := [p for p in self.processes(part) if p not in (os.getpid(), 0)]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if asyncio.get_running_loop().time() > end:
                raise Unavailable(f"processes of {self.name}/{part} do not end: {pids[:5]}")
            await asyncio.sleep(0.02)

    async def remove(self, part: str = "") -> None:
        """Remove the groups of a part, or of the whole cloud, innermost first."""
        tops = self.folders(part)
        for _ in range(50):
            left = [top for top in tops if not _removed(top)]
            if not left:
                break
            # a group stays busy for a moment after its last process
            await asyncio.sleep(0.02)


def _restrict(folder: Path, rules: tuple[str, ...]) -> None:
    try:
        (folder / "devices.allow").write_text("a")
    except PermissionError:
        # this machine is itself confined: then only a list of what is allowed can be given
        _write_each(folder / "devices.deny", ("a",))
        _write_each(folder / "devices.allow", rules)
    else:
        _write_each(folder / "devices.deny", refusals(rules))


def _write_each(file: Path, lines: tuple[str, ...]) -> None:
    """Write lines with one call each, which is what the kernel reads."""
    handle = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for line in lines:
            os.write(handle, line.encode())
    finally:
        os.close(handle)


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not top.exists()


def _delegate(folder: Path) -> None:
    """Hand all controllers down to the groups in `folder`, which has no process of its own.

    With one, a controller like cpu would make it the root of a threaded tree, and groups below it
    could take no process any more. The root of the whole tree is exempt, and has no cgroup.type.
    """
    for level in (folder.parent, folder):
        if (level / "cgroup.type").exists() and (level / "cgroup.procs").read_text().strip():
            return
        have = (level / "cgroup.controllers").read_text().split()
        for controller in have:
            with contextlib.suppress(OSError):  # one that this level does not delegate
                (level / "cgroup.subtree_control").write_text(f"+{controller}")
