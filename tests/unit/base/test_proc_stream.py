from __future__ import annotations

import pytest

from constellation.base.proc import Failed, stream


async def test_lines_of_both_outputs_come_as_they_are_written() -> None:
    lines: list[str] = []
    await stream("sh", "-c", "echo a; echo b >&2; printf c", timeout_s=10, on_line=lines.append)
    assert lines == ["a", "b", "c"]


async def test_a_failure_has_the_last_lines() -> None:
    with pytest.raises(Failed, match="sh ended with 3: why"):
        await stream("sh", "-c", "echo why; exit 3", timeout_s=10, on_line=lambda _: None)


async def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(Failed, match="did not end within"):
        await stream("sleep", "60", timeout_s=0.1, on_line=lambda _: None)


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(Failed, match="did not start"):
        await stream("/nonexistent/program", timeout_s=1, on_line=lambda _: None)
