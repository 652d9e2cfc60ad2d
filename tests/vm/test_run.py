"""How a run of the test machine judges its steps: what is kept, what ends it, what passes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.qemu import Gone
from tests.vm.run import REST_S, Run
from tests.vm.steps import MAY_FAIL
from tests.vm.world import BOOT_S, Failed

NAMES = ("describe", "cluster", "down")
assert "cluster" in MAY_FAIL


def make(*, seconds: float = 10_000) -> tuple[Run, list[dict[str, Any]]]:
    noted: list[dict[str, Any]] = []
    run = Run(
        folder=Path("/nowhere"),
        names=NAMES,
        end_s=time.monotonic() + seconds,
        note=lambda results: noted.append({**results}),
    )
    return run, noted


async def through(run: Run, name: str, error: BaseException | None = None) -> None:
    async with run.step(name) as facts:
        facts["found"] = name
        if error is not None:
            raise error


async def test_a_run_passes_when_all_that_may_not_fail_was_done() -> None:
    run, noted = make()
    for name in ("boot", "describe"):
        await through(run, name)
    await through(run, "cluster", Failed("too slow"))
    assert not run.passed, "the last step is missing"
    await through(run, "down")
    assert run.passed
    assert run.results["cluster"]["error"] == "too slow"
    assert [len(results) for results in noted] == [1, 2, 3, 4]


async def test_a_step_that_may_not_fail_fails_the_run() -> None:
    run, _ = make()
    for name in ("boot", "cluster", "down"):
        await through(run, name)
    await through(run, "describe", Failed("expected 'systemd', found 'sh'"))
    assert run.results["describe"]["ok"] is False
    assert not run.passed


@pytest.mark.parametrize("error", [Gone("no answer"), asyncio.CancelledError(), OSError(5)])
async def test_what_ends_a_run_is_kept_and_goes_on(error: BaseException) -> None:
    run, noted = make()
    with pytest.raises(type(error)):
        await through(run, "describe", error)
    assert noted[-1]["describe"]["ok"] is False
    assert noted[-1]["describe"]["error"]


async def test_no_step_goes_beyond_the_run_and_cluster_leaves_a_rest() -> None:
    run, _ = make(seconds=2000)
    assert run.end_of("cluster") == run.end_s - REST_S
    assert run.end_of("down") == pytest.approx(time.monotonic() + BOOT_S, abs=5)
    run, _ = make(seconds=100)
    assert run.end_of("down") == run.end_s
