"""Whether this machine can carry a local cluster: each kernel feature is tried, not looked up.

Run as a process of its own (`main --preflight`): it leaves for new mount and network namespaces, so
that whatever it makes goes with it. Nothing takes longer than a few milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import shutil
import socket
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from constellation.base.errors import ConstellationError
from constellation.providers.local.daemon import bpf, kernel, loops
from constellation.providers.local.daemon.cgroups import NODE_DEVICES, Cgroups
from constellation.providers.local.daemon.device_program import program

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Check", "as_json", "run"]

_MIN_MEMORY_BYTES = 4 * 1000**3
_MIN_DISK_BYTES = 10 * 1000**3
_CONTROLLERS = ("cpu", "memory", "pids")
_KEYCTL = {"x86_64": 250, "aarch64": 219}  # syscall numbers
_SESSION_KEYRING = -3
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_NETLINK_NETFILTER = 12
_NFT_MSG_NEWGEN, _NFT_MSG_GETGEN = 0x0A0F, 0x0A10  # subsystem 10, linux/netfilter/nf_tables.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried: `problem` is empty where it works, else what is missing."""

    name: str
    problem: str = ""
    hint: str = ""


def run() -> tuple[Check, ...]:
    """Try everything. Without root, only root is reported missing."""
    if os.geteuid() != 0:
        return (Check(name="root", problem="not root", hint="run it through sudo"),)
    try:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET)
        kernel.mount("none", Path("/"), flags=kernel.MS_REC | kernel.MS_PRIVATE)
    except OSError as error:
        hint = "allow namespaces (unshare) for root, e.g. not in an unprivileged container"
        return (Check(name="namespaces", problem=str(error), hint=hint),)
    with tempfile.TemporaryDirectory(prefix="constellation-preflight-") as name:
        folder = Path(name)
        kernel.mount("constellation-preflight", folder, kind="tmpfs")
        try:
            return tuple(_try(*check) for check in _checks(folder))
        finally:
            kernel.umount(folder)


def as_json(checks: tuple[Check, ...]) -> dict[str, object]:
    """Give the findings as plain JSON values: `ok`, and every check."""
    listed = [{"name": c.name, "problem": c.problem, "hint": c.hint} for c in checks]
    return {"ok": not any(c.problem for c in checks), "checks": listed}


def _checks(folder: Path) -> tuple[tuple[str, str, Callable[[], None]], ...]:
    return (
        ("overlay", "modprobe overlay (CONFIG_OVERLAY_FS)", lambda: _overlay(folder)),
        ("loop devices", "modprobe loop (CONFIG_BLK_DEV_LOOP)", lambda: _loop(folder)),
        ("squashfs", "modprobe squashfs (CONFIG_SQUASHFS)", lambda: _mounts(folder, "squashfs")),
        ("ext4 encryption", "a kernel with CONFIG_FS_ENCRYPTION and ext4", lambda: _ext4(folder)),
        ("bridge", "modprobe bridge (CONFIG_BRIDGE)", lambda: _link("bridge")),
        ("veth", "modprobe veth (CONFIG_VETH)", lambda: _link("veth")),
        ("nf_tables", "modprobe nf_tables (CONFIG_NF_TABLES)", _nf_tables),
        ("tun", "modprobe tun (CONFIG_TUN)", _tun),
        ("fuse", "modprobe fuse (CONFIG_FUSE_FS)", lambda: os.close(_open("/dev/fuse"))),
        ("kernel keyring", "a kernel with CONFIG_KEYS; allow keyctl", _keyctl),
        ("cgroup controllers", "enable cpu, memory and pids (cgroup_enable=memory)", _cgroups),
        ("device programs", "a kernel with CONFIG_CGROUP_BPF", _device_programs),
        ("memory", f"a machine with {_MIN_MEMORY_BYTES // 1000**3} GB", _memory),
        ("disk", f"free {_MIN_DISK_BYTES // 1000**3} GB below /var/lib", _disk),
    )


def _try(name: str, hint: str, work: Callable[[], None]) -> Check:
    try:
        work()
    except (OSError, NetlinkError, ConstellationError, _Missing) as error:
        return Check(name=name, problem=str(error), hint=hint)
    return Check(name=name)


class _Missing(Exception):
    """A feature is not there; the text says what was found."""


def _overlay(folder: Path) -> None:
    for part in ("lower", "upper", "work", "merged"):
        (folder / part).mkdir()
    data = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    kernel.mount("overlay", folder / "merged", kind="overlay", data=data)
    kernel.umount(folder / "merged")


def _device(folder: Path) -> loops.LoopDevice:
    path = folder / "disk"
    path.write_bytes(bytes(1024 * 1024))
    with path.open("rb") as file:
        return loops.attach(file.fileno(), name="preflight", read_only=True)


def _loop(folder: Path) -> None:
    _device(folder).close()


def _mounts(folder: Path, kind: str) -> None:
    device = _device(folder)
    try:
        # zeros are no file system: EINVAL says that the kernel looked, ENODEV that it cannot
        kernel.mount(str(device.path), folder, kind=kind, flags=kernel.MS_RDONLY)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        device.close()


def _ext4(folder: Path) -> None:
    _mounts(folder, "ext4")  # loads the module, which then lists its features
    if not Path("/sys/fs/ext4/features/encryption").exists():
        raise _Missing("ext4 of this kernel does not list the feature 'encryption'")


def _link(kind: str) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=f"pre-{kind}", kind=kind)


def _nf_tables() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(1)
        # nlmsghdr (16 bytes: length, type, flags NLM_F_REQUEST, sequence, pid), nfgenmsg (4 bytes)
        netlink.send(struct.pack("=IHHIIBBH", 20, _NFT_MSG_GETGEN, 1, 1, 0, 0, 0, 0))
        answer = netlink.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] != _NFT_MSG_NEWGEN:
        raise _Missing("the kernel does not know nf_tables")


def _tun() -> None:
    handle = _open("/dev/net/tun")
    try:
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", b"pre-tun", _IFF_TUN_NO_PI))
    finally:
        os.close(handle)


def _keyctl() -> None:
    number = _KEYCTL.get(platform.machine())
    if number is None:
        raise _Missing(f"machine {platform.machine()} is not supported")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, _SESSION_KEYRING, 1) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _cgroups() -> None:
    groups = Cgroups.find("constellation-preflight")
    if groups.version == 1:
        have = {name for tree in groups.trees for name in tree.name.split(",")}
    else:
        have = set((groups.trees[0] / "cgroup.controllers").read_text().split())
    if lacking := [c for c in _CONTROLLERS if c not in have]:
        raise _Missing(f"missing: {', '.join(lacking)}")


def _device_programs() -> None:
    if Cgroups.find("constellation-preflight").version > 1:
        os.close(bpf.load_device_program(program(NODE_DEVICES)))


def _memory() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total < _MIN_MEMORY_BYTES:
        raise _Missing(f"{total / 1000**3:.1f} GB")


def _disk() -> None:
    free = shutil.disk_usage("/var/lib").free
    if free < _MIN_DISK_BYTES:
        raise _Missing(f"{free / 1000**3:.1f} GB free")


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
