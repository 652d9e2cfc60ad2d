"""How a cgroup v2 group refuses all devices but a few: a BPF program, written here (pure).

The kernel asks it at each open and each mknod of a device, for every process in the group and
below it; a group below may refuse more, never less. Instructions are the kernel's own form, eight
bytes each, so that no compiler is needed and each can be read against its rule.
Sources: linux/bpf.h (`struct bpf_insn`, `struct bpf_cgroup_dev_ctx`, BPF_DEVCG_*),
linux/bpf_common.h; Documentation/admin-guide/cgroup-v2.rst, "Device controller".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["program"]

_INSTRUCTION = struct.Struct("=BBhi")  # code, registers (source << 4 | target), offset, immediate
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_COPY = 0xBC  # BPF_ALU | BPF_MOV | BPF_X, 32 bits
_SET = 0xB4  # BPF_ALU | BPF_MOV | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_JUMP_UNLESS_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT
_RESULT, _CONTEXT, _ACCESS, _KIND, _MAJOR, _MINOR = range(6)  # registers r0 … r5
_KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_ACCESSES = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
_ALL = 7


def program(allowed: Iterable[str]) -> bytes:
    """Give the program that allows only `allowed` ("c 1:3 rwm", "c 136:* rwm", "b *:* m").

    One access is allowed if one rule grants all of it.

    Raises:
        ValueError: a rule of another form.
    """
    code = [
        _instruction(_LOAD_WORD, _KIND, source=_CONTEXT, offset=0),  # access << 16 | kind
        _instruction(_COPY, _ACCESS, source=_KIND),
        _instruction(_SHIFT_RIGHT, _ACCESS, immediate=16),
        _instruction(_AND, _KIND, immediate=0xFFFF),
        _instruction(_LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
    ]
    for rule in allowed:
        code += _rule(rule)
    return b"".join((*code, *_end(allow=False)))


def _rule(rule: str) -> tuple[bytes, ...]:
    kind, numbers, access = rule.split(" ")
    major, _, minor = numbers.partition(":")
    if kind not in _KINDS or not access or not set(access) <= set(_ACCESSES):
        raise ValueError(f"device rule {rule!r}: want [bc] MAJOR:MINOR [rwm]")
    tests = [(_KIND, _KINDS[kind])]
    tests += [(register, int(number)) for register, number in ((_MAJOR, major), (_MINOR, minor))
              if number != "*"]  # fmt: skip
    refused = _ALL & ~sum(_ACCESSES[letter] for letter in set(access))
    length = len(tests) + 3 + 2  # what is asked beyond the rule; allow
    words = [
        _instruction(_JUMP_UNLESS_EQUAL, register, offset=length - at - 1, immediate=number)
        for at, (register, number) in enumerate(tests)
    ]
    words += [
        _instruction(_COPY, _RESULT, source=_ACCESS),
        _instruction(_AND, _RESULT, immediate=refused),
        _instruction(_JUMP_UNLESS_EQUAL, _RESULT, offset=2, immediate=0),
    ]
    return (*words, *_end(allow=True))


def _end(*, allow: bool) -> tuple[bytes, ...]:
    return (_instruction(_SET, _RESULT, immediate=int(allow)), _instruction(_EXIT, _RESULT))


def _instruction(
    code: int, target: int, *, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | target, offset, immediate)
