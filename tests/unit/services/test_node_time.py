"""What a node's files say about the time bounds the clocks of its programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from constellation.base import clock
from constellation.base.time_bounds import TimeBounds
from constellation.services import node_time
from constellation.services.node_time import NodeTime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Iterator[NodeTime]:
    yield NodeTime(
        image=tmp_path / "image.json",
        said=tmp_path / "run" / "said.json",
        kept=tmp_path / "state" / "time.json",
    )
    clock.bound(TimeBounds(floor_s=0, said=None))


def test_the_floor_is_the_latest_of_build_ticket_and_disk(files: NodeTime) -> None:
    now = int(datetime.now(UTC).timestamp())
    files.bound_clock()
    assert clock.now().timestamp() < now + 100
    files.image.write_text(json.dumps({"name": "image", "build_time": now + 1000}))
    files.bound_clock()
    assert int(clock.now().timestamp()) == now + 1000
    files.say(now + 2000)
    assert int(clock.now().timestamp()) == now + 2000
    files.kept.parent.mkdir()
    files.kept.write_text(json.dumps({"seconds": now + 3000}))
    files.bound_clock()
    assert int(clock.now().timestamp()) == now + 3000


async def test_a_jump_is_reported_and_never_becomes_a_floor(
    files: NodeTime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_time, "_EVERY_S", 0.01)
    files.say(1_000_000)  # the machine's clock is decades ahead of that
    keeping = asyncio.create_task(files.keep())
    await asyncio.sleep(0.05)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    assert 1_000_000 <= json.loads(files.kept.read_bytes())["seconds"] < 1_000_100
    assert "the clock has jumped ahead" in caplog.text


async def test_the_last_time_is_kept(files: NodeTime) -> None:
    keeping = asyncio.create_task(files.keep())
    await asyncio.sleep(0.05)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    kept = json.loads(files.kept.read_bytes())["seconds"]
    assert abs(kept - datetime.now(UTC).timestamp()) < 100
