"""Removing a cloud by its id alone: processes, groups, mounts, folders.

What is not here goes with what is: namespaces and links with the last process and mount that holds
them, loop devices with their last user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base.progress import Progress
from constellation.providers.local.daemon import home, inotify, kernel, loops, run_folders
from constellation.providers.local.daemon.layout import RUN_ROOT, STATE_ROOT

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.providers.local.daemon.cgroups import Cgroups
    from constellation.providers.local.daemon.layout import Layout

__all__ = ["sweep"]

_POWER_OFF = signal.SIGRTMIN + 4
_GRACE_S = 4.0
_LOOPS_S = 10.0


async def sweep(
    where: Layout, cgroups: Cgroups, *, keep_disks: bool, inits: tuple[int, ...], report: Report
) -> None:
    """Remove everything of a cloud but the calling process.

    Args:
        where: its names.
        cgroups: its groups; the caller has left them, or stays in "daemon".
        keep_disks: leaves the state folder (disks, TPMs, record).
        inits: pids of nodes' inits, which get a chance to end in order.
        report: told about each step.

    Raises:
        Unavailable: a process does not end.
    """
    report(Progress(step="nodes", detail="power off"))
    for pid in inits:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, _POWER_OFF)
    await kernel.until(lambda: not any(map(kernel.start_time, inits)), deadline_s=_GRACE_S)
    for part in cgroups.parts():
        await cgroups.kill(part, deadline_s=10)
    report(Progress(step="nodes", finished=True))
    report(Progress(step="network and mounts"))
    await asyncio.to_thread(_unmount, where)
    await kernel.until(lambda: not loops.backing_devices(where.state), deadline_s=_LOOPS_S)
    report(Progress(step="network and mounts", finished=True))
    for part in cgroups.parts():
        if part != "daemon":
            await cgroups.remove(part)
    await asyncio.to_thread(_remove_folders, where, keep_disks=keep_disks)
    report(Progress(step="folders", finished=True))


def _unmount(where: Layout) -> None:
    for netns in sorted(Path("/run/netns").glob(f"{where.name}*")):
        ours = netns.name.startswith(f"{where.name}-{where.id}-")
        if ours or netns in (where.netns(), where.host_netns):
            kernel.umount(netns)
            netns.unlink(missing_ok=True)
    # roots, and the squashfs files in host folders, which a daemon that was killed left mounted:
    # what is mounted cannot be removed
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    for point in reversed([line.split(" ")[4] for line in mounts]):
        if point.startswith(f"{where.run}/"):
            kernel.umount(Path(point))
    home.leave(where)


def _remove_folders(where: Layout, *, keep_disks: bool) -> None:
    for folder in (where.run,) if keep_disks else (where.run, where.state):
        shutil.rmtree(folder, ignore_errors=True)
    with run_folders.held():
        inotify.give_back()
        run_folders.give_back()
    for parent in (RUN_ROOT, STATE_ROOT):
        with contextlib.suppress(OSError):  # another cloud's
            parent.rmdir()
