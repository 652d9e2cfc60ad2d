"""The kernel calls that Python has no name for: mounts, namespaces, and work inside another one.

Sources: mount(2), umount2(2), unshare(2), setns(2); numbers from linux/mount.h and linux/sched.h.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "MS_SHARED",
    "alive",
    "enter",
    "inside",
    "mount",
    "mounted",
    "start_time",
    "umount",
    "unshare",
    "until",
]

T = TypeVar("T")

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWNET = 0x40000000
_MNT_DETACH = 2
_START_TIME_FIELD = 22  # of /proc/PID/stat, counted from 1 (proc_pid_stat(5))

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system. Raises OSError with source and target in its message."""
    result = _libc.mount(
        source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _checked(result, f"mount {source} on {target}")


def umount(target: Path) -> None:
    """Take a mount away, at once for new users and later for present ones; none is no error."""
    while mounted(target):
        _checked(_libc.umount2(str(target).encode(), _MNT_DETACH), f"umount {target}")


def mounted(target: Path) -> bool:
    """Say whether something is mounted exactly there in this mount namespace."""
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4] == str(target) for line in lines)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def enter(namespace: Path, kind: int) -> None:
    """Go into a namespace (a file below /proc/PID/ns or a bind of it)."""
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(handle, kind), f"setns {namespace}")
    finally:
        os.close(handle)


async def inside(work: Callable[[], T], *, net: Path | None = None, mnt: Path | None = None) -> T:
    """Call `work` in a thread of its own that has entered these namespaces and then ends.

    A thread of a pool would carry the namespace to whoever gets it next.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T is None

    def run() -> None:
        try:
            if net is not None:
                enter(net, CLONE_NEWNET)
            if mnt is not None:
                unshare(CLONE_FS)  # setns refuses a mount namespace while others share our cwd
                enter(mnt, CLONE_NEWNS)
            result = work()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=run, daemon=True).start()
    return await future


async def until(ready: Callable[[], bool], *, deadline_s: float) -> bool:
    """Ask every 20 ms, since the kernel tells of none of these; False at the deadline."""
    end = asyncio.get_running_loop().time() + deadline_s
    while not ready():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.02)
    return True


def start_time(pid: int) -> int:
    """Give a process' start time in clock ticks since boot; 0 where there is none or a zombie.

    A pid together with its start time names one process for ever.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()  # the name may hold spaces; field 3 comes first here
    return 0 if fields[0] in "ZX" else int(fields[_START_TIME_FIELD - 3])


def alive(pid: int, started: int) -> bool:
    """Say whether exactly this process still runs."""
    return pid > 0 and started > 0 and start_time(pid) == started
