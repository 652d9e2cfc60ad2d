"""Parts of the cache are made by one at a time; the others wait, in this run and in another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict
from constellation.base.files import lock
from constellation.base.progress import silent
from constellation.cli.world import alone

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.progress import Progress


async def test_two_tasks_never_make_the_same_part_at_once(tmp_path: Path) -> None:
    inside = most = 0

    async def make() -> None:
        nonlocal inside, most
        async with alone(tmp_path, "tools", report=silent):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(make())
    assert most == 1


async def test_a_second_run_waits_and_says_so(tmp_path: Path) -> None:
    said: list[Progress] = []
    held = lock(tmp_path / "image.lock", what="the other run")
    with held:
        waiting = asyncio.create_task(_enter(tmp_path, said))
        while not said:  # noqa: ASYNC110 - what it says is all that can be seen
            await asyncio.sleep(0.001)
        assert not waiting.done()
    async with asyncio.timeout(10):
        await waiting
    assert [p.finished for p in said][-1]


async def test_a_conflict_inside_is_not_taken_for_waiting(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="inside"):
        async with asyncio.timeout(10), alone(tmp_path, "image", report=silent):
            raise Conflict("inside")


async def _enter(cache: Path, said: list[Progress]) -> None:
    async with alone(cache, "image", report=said.append):
        pass
