"""Giving a cgroup its device program: bpf(2), for which Python has no name.

The program stays as long as the group does, and goes with it; nothing is pinned.
Sources: bpf(2), linux/bpf.h (`union bpf_attr`, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["attach_device_program", "load_device_program"]

_SYSCALL = {"x86_64": 321, "aarch64": 280}  # __NR_bpf
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6  # enum bpf_attach_type
_ALLOW_MULTI = 2  # together with programs above and below, all of which have to allow
_LOAD = struct.Struct("=IIQQIIQII16s64x")  # type, count, code, licence, log …, name; rest zero
_ATTACH = struct.Struct("=IIII112x")  # group, program, type, flags
_INSTRUCTION_BYTES = 8
_NAME = b"constellation"

_libc = ctypes.CDLL(None, use_errno=True)


def load_device_program(code: bytes) -> int:
    """Hand a program to the kernel, which verifies it; gives its descriptor.

    Raises:
        Unavailable: the kernel has no such programs, or refused this one.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    return _bpf(
        _PROG_LOAD,
        _LOAD.pack(
            _PROG_TYPE_CGROUP_DEVICE,
            len(code) // _INSTRUCTION_BYTES,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
            *(0, 0, 0, 0, 0),
            _NAME,
        ),
        "load",
    )


def attach_device_program(group: Path, code: bytes) -> None:
    """Make `group` (a folder of cgroup v2) and all below it obey a device program.

    Raises:
        Unavailable: the kernel refused.
    """
    program = load_device_program(code)
    try:
        folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(
                _PROG_ATTACH, _ATTACH.pack(folder, program, _CGROUP_DEVICE, _ALLOW_MULTI), "attach"
            )
        finally:
            os.close(folder)
    finally:
        os.close(program)


def _bpf(call: int, attributes: bytes, what: str) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise Unavailable(f"bpf: machine {platform.machine()} is not supported")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(number, call, buffer, ctypes.c_ulong(len(attributes))))
    if result < 0:
        error = os.strerror(ctypes.get_errno())
        raise Unavailable(
            f"bpf: {what} of a device program: {error}",
            hint="a kernel with CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL",
        )
    return result
