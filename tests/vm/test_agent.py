"""The test machine's agent keeps its word: every order ends, with its number, by its deadline."""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time

from tests.vm.agent import AFTER_S, obey


def ordered(script: str, *, timeout_s: float = 20, stdin: bytes = b"") -> tuple[int, list[str]]:
    """Give the agent an order; its code and lines."""
    order = {
        "number": 7,
        "argv": ["sh", "-c", script],
        "stdin": base64.b64encode(stdin).decode(),
        "timeout_s": timeout_s,
    }
    with tempfile.TemporaryFile() as port:
        obey(dict(order), port.fileno())
        port.seek(0)
        words = [json.loads(line) for line in port]
    assert {word["number"] for word in words} == {7}
    return words[-1]["code"], [word["line"] for word in words[:-1]]


def test_lines_and_code_come_as_the_program_gave_them() -> None:
    assert ordered("cat; echo err >&2; printf end; exit 3", stdin=b"one\ntwo\n") == (
        3,
        ["one", "two", "err", "end"],
    )


def test_a_program_is_ended_at_its_deadline_with_its_children() -> None:
    began = time.monotonic()
    code, lines = ordered("echo begun; sleep 60; echo never", timeout_s=0.5)
    assert (code, lines) == (-9, ["begun", "(ended after 0 s, its deadline)"])
    assert time.monotonic() - began < 30


def test_a_program_that_closed_its_output_is_ended_as_well() -> None:
    code, _ = ordered("exec >&- 2>&-; sleep 60", timeout_s=0.5)
    assert code == -9


def test_what_a_program_leaves_behind_is_not_waited_for() -> None:
    began = time.monotonic()
    code, lines = ordered("sleep 60 & echo $!")
    os.kill(int(lines[0]), 9)
    assert code == 0
    assert AFTER_S <= time.monotonic() - began < 30


def test_a_program_may_print_before_it_reads() -> None:
    script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; wc -c"
    code, lines = ordered(script, stdin=bytes(4 * 1024 * 1024))
    assert (code, lines[-1]) == (0, str(4 * 1024 * 1024))
    assert sum(map(len, lines[:-1])) == 1_000_000


def test_input_that_nobody_reads_holds_nothing_up() -> None:
    assert ordered("echo done", stdin=bytes(4 * 1024 * 1024)) == (0, ["done"])
