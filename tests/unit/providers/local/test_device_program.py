"""The BPF program that confines a node's devices, run by an interpreter of the few codes it has."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.providers.local.daemon.bpf import attach_device_program
from constellation.providers.local.daemon.cgroups import NODE_DEVICES
from constellation.providers.local.daemon.device_program import program

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS, ACCESSES = {"b": 1, "c": 2}, {"m": 1, "r": 2, "w": 4}  # linux/bpf.h


def allowed(code: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run a program on one access; each instruction as linux/bpf_common.h defines it."""
    context = (sum(ACCESSES[letter] for letter in access) << 16 | KINDS[kind], major, minor)
    registers = [0] * 11
    at = 0
    while True:
        operation, pair, offset, immediate = struct.unpack_from("=BBhi", code, at * 8)
        at += 1
        target, source = pair & 15, pair >> 4
        match operation:
            case 0x61:  # load a word; r1 is the context
                assert source == 1
                registers[target] = context[offset // 4]
            case 0xBC:
                registers[target] = registers[source]
            case 0xB4:
                registers[target] = immediate
            case 0x54:
                registers[target] &= immediate
            case 0x74:
                registers[target] >>= immediate
            case 0x55:
                at += offset if registers[target] != immediate else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(hex(operation))


def by_rules(rules: tuple[str, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """Say the same as a person reads the rules."""
    return any(
        rule.split(" ")[0] == kind
        and rule.split(" ")[1].split(":")[0] in ("*", str(major))
        and rule.split(" ")[1].split(":")[1] in ("*", str(minor))
        and set(access) <= set(rule.split(" ")[2])
        for rule in rules
    )


_NUMBERS = st.sampled_from((0, 1, 2, 7, 8, 136, 254, 511, 1048575))
_RULES = st.lists(
    st.builds(
        "{} {}:{} {}".format,
        st.sampled_from("bc"),
        st.one_of(st.just("*"), _NUMBERS),
        st.one_of(st.just("*"), _NUMBERS),
        st.sampled_from(("m", "r", "rw", "rwm")),
    ),
    max_size=5,
)


@given(_RULES, st.sampled_from("bc"), _NUMBERS, _NUMBERS, st.sampled_from(("m", "r", "w", "rw")))
def test_a_program_says_what_its_rules_say(
    rules: list[str], kind: str, major: int, minor: int, access: str
) -> None:
    want = by_rules(tuple(rules), kind, major, minor, access)
    assert allowed(program(rules), kind, major, minor, access) is want


def test_a_node_makes_any_device_node_and_opens_few() -> None:
    code = program((*NODE_DEVICES, "b 7:5 rwm"))
    assert allowed(code, "b", 254, 0, "m")
    assert not allowed(code, "b", 254, 0, "r")
    assert allowed(code, "b", 7, 5, "rw")
    assert not allowed(code, "b", 7, 6, "r")  # another node's disk
    assert not allowed(code, "c", 1, 1, "r")  # /dev/mem
    assert not allowed(code, "c", 10, 237, "rw")  # /dev/loop-control
    assert allowed(code, "c", 1, 3, "rw")


def test_no_rules_allow_nothing() -> None:
    assert not allowed(program(()), "c", 1, 3, "m")


@pytest.mark.parametrize("rule", ["a *:* rwm", "c 1:3 x", "c 1:3 ", "c x:3 r"])
def test_a_rule_of_another_form_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        program((rule,))


def _tree() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split(" ")[4])
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    """Give a group of cgroup v2's tree, which takes programs also beside v1's controllers."""
    tree = _tree()
    if os.geteuid() != 0 or tree is None:
        pytest.skip("root makes the group, where cgroup2 is mounted")
    folder = tree / f"constellation-test-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


@pytest.mark.cluster
def test_the_kernel_obeys_the_program(group: Path, tmp_path: Path) -> None:
    attach_device_program(group, program(NODE_DEVICES))
    look = f"""
import os
open("{group}/cgroup.procs", "w").write("0")
os.mknod("{tmp_path}/memory", 0o20600, os.makedev(1, 1))
os.close(os.open("/dev/zero", os.O_RDWR))
os.open("{tmp_path}/memory", os.O_RDONLY)
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert f"PermissionError: [Errno 1] Operation not permitted: '{tmp_path}/memory'" in done.stderr
