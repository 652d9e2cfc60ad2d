"""Loop devices that go away by themselves: bound to an open file, freed with their last user.

Source: linux/loop.h (`struct loop_config`, 304 bytes), loop(4). LO_FLAGS_AUTOCLEAR frees the device
when nothing has it open or mounted; whoever holds `LoopDevice.handle` keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from constellation.base.errors import Unavailable

__all__ = ["LoopDevice", "attach", "backing_devices"]

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_MAJOR = 7
# u32 fd, u32 block_size, loop_info64 (5*u64, 4*u32, 64 name, 64 crypt name, 32 key, 2*u64), 8*u64
_LOOP_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q64x")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopDevice:
    """One attached device: its path, number, and the descriptor that keeps it."""

    path: Path
    major: int
    minor: int
    handle: int

    def close(self) -> None:
        """Let go; the kernel frees the device once nobody else uses it."""
        os.close(self.handle)


def attach(file: int, *, name: str, read_only: bool) -> LoopDevice:
    """Attach an open file (its descriptor) to a free loop device.

    Raises:
        Unavailable: the kernel has no loop devices, or none was free in 64 tries.
    """
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    config = _LOOP_CONFIG.pack(
        *(file, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags), name.encode()[:63], b"", b"", 0, 0
    )
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"loop devices: {error}", hint="modprobe loop") from error
    try:
        for _ in range(64):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            path = Path(f"/dev/loop{number}")
            with contextlib.suppress(FileExistsError):
                if not path.exists():  # no udev
                    os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(_LOOP_MAJOR, number))
            mode = os.O_RDONLY if read_only else os.O_RDWR
            device = os.open(path, mode | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError:  # another process took it first
                os.close(device)
                continue
            return LoopDevice(path=path, major=_LOOP_MAJOR, minor=number, handle=device)
    finally:
        os.close(control)
    raise Unavailable("no loop device became free in 64 tries")


def backing_devices(folder: Path) -> tuple[Path, ...]:
    """List loop devices whose file lies below `folder`, by what the kernel says."""
    found = []
    for entry in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            if Path(entry.read_text().strip()).is_relative_to(folder):
                found.append(Path("/dev") / entry.parts[3])
    return tuple(found)
