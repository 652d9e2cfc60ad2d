"""The mount namespace and cgroup that a daemon lives in: an earlier daemon's, else new ones.

Mounts of a cloud are in no one's namespace but its own, so they vanish with its last process.
A restarted daemon finds that namespace by any process of the cloud that is still in it: there,
a tmpfs with the cloud's name as its source lies on /run/netns and on nspawn's folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.providers.local.daemon import kernel, run_folders
from constellation.providers.local.daemon.cgroups import Cgroups

if TYPE_CHECKING:
    from constellation.providers.local.daemon.layout import Layout

__all__ = ["NSPAWN", "inits", "leave", "settle"]

_NETNS = Path("/run/netns")
NSPAWN = Path("/run/systemd/nspawn")
"""Where systemd-nspawn keeps files and mounts a machine, and leaves them when it is killed."""


def settle(where: Layout, *, adopt_only: bool = False) -> Cgroups:
    """Move this process (one thread, before any event loop) to the cloud's groups and mounts.

    With `adopt_only`, as for a removal, nothing is made: only a living namespace is entered.
    """
    groups = Cgroups.find(where.name)
    living = _living(where, groups)
    if not adopt_only:
        where.run.mkdir(parents=True, exist_ok=True)
        groups.ensure("daemon")
        groups.enter("daemon")
        groups.ensure("daemon")  # v2: controllers are handed down once we left the scope itself
    if living is not None:
        kernel.enter(living, kernel.CLONE_NEWNS)
        os.chdir("/")
    elif not adopt_only:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", Path("/"), flags=kernel.MS_REC | kernel.MS_PRIVATE)
        with run_folders.held():
            run_folders.make((NSPAWN, _NETNS))
            for folder in (NSPAWN, _NETNS):  # _NETNS last: it is the mark that all is there
                kernel.mount(where.name, folder, kind="tmpfs", data="mode=755,size=4m")
    return groups


def leave(where: Layout) -> None:
    """Take our own mounts away, so that nothing hides the folders below; a cloud's last act."""
    for folder in (_NETNS, NSPAWN):
        if _hidden(Path("/proc/self/mountinfo").read_text(), folder, where):
            kernel.umount(folder)


def inits(groups: Cgroups) -> tuple[int, ...]:
    """List the cloud's processes that are pid 1 of a namespace below ours."""
    found = []
    for pid in groups.processes():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        line = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()[1:]
        if len(line) == 2 and line[1] == "1":  # noqa: PLR2004 - ours and the node's
            found.append(pid)
    return tuple(found)


def _living(where: Layout, groups: Cgroups) -> Path | None:
    for pid in groups.processes():
        try:
            mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        except OSError:
            continue
        if _hidden(mounts, _NETNS, where):
            return Path(f"/proc/{pid}/ns/mnt")
    return None


def _hidden(mounts: str, folder: Path, where: Layout) -> bool:
    return any(
        line.split(" ")[4] == str(folder) and f" - tmpfs {where.name} " in line
        for line in mounts.splitlines()
    )
