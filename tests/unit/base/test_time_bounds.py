"""A clock is not believed below what has passed for sure, nor for windows when it jumped ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from constellation.base import clock
from constellation.base.time_bounds import JUMP, Said, TimeBounds

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID = Said(seconds=1_000_000, boot_s=100)
BOUNDS = TimeBounds(floor_s=900_000, said=SAID)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize(
    ("bounds", "wall", "expected"),
    [
        (TimeBounds(floor_s=0, said=None), 5, 5),
        (TimeBounds(floor_s=900_000, said=None), 5, 900_000),
        (TimeBounds(floor_s=900_000, said=None), 900_001, 900_001),
        (BOUNDS, 950_000, 1_000_000),
        (TimeBounds(floor_s=1_100_000, said=SAID), 1_050_000, 1_100_000),
    ],
)
def test_the_clock_is_never_taken_below_its_floor(
    bounds: TimeBounds, wall: int, expected: int
) -> None:
    assert bounds.floored(at(wall)) == at(expected)


def test_a_jump_ahead_is_not_obeyed_for_windows() -> None:
    # 50 s after it was said
    just, jumped = at(1_000_050) + JUMP, at(1_000_051) + JUMP
    assert BOUNDS.windowed(just, boot_s=150) == just
    assert BOUNDS.ahead(just, boot_s=150) is None
    assert BOUNDS.windowed(jumped, boot_s=150) == at(1_000_050)
    assert BOUNDS.ahead(jumped, boot_s=150) == JUMP + timedelta(seconds=1)
    assert BOUNDS.floored(jumped) == jumped, "only windows do not obey it"


def test_a_year_that_has_passed_is_no_jump_while_nobody_said_a_time() -> None:
    bounds = TimeBounds(floor_s=900_000, said=None)
    assert bounds.ahead(at(40_000_000), boot_s=1) is None
    assert bounds.windowed(at(40_000_000), boot_s=1) == at(40_000_000)


@pytest.fixture
def unbound() -> Iterator[None]:
    yield
    clock.bound(TimeBounds(floor_s=0, said=None))


@pytest.mark.usefixtures("unbound")
def test_a_process_has_one_bounded_clock() -> None:
    future = int(datetime.now(UTC).timestamp()) + 5_000
    clock.bound(TimeBounds(floor_s=future, said=None))
    assert clock.now() == clock.now_for_windows() == at(future)
    past = Said(seconds=1_000_000, boot_s=int(clock.boot_s()))
    clock.bound(TimeBounds(floor_s=0, said=past))
    assert clock.now() - datetime.now(UTC) < timedelta(seconds=5)
    assert at(1_000_000) <= clock.now_for_windows() < at(1_000_010)
    assert clock.ahead() is not None
