"""Every parser takes time and memory linear in its input: twice the bytes, about twice the cost."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.table import TARGETS
from tests.fuzz.target import repeated

if TYPE_CHECKING:
    from tests.fuzz.target import Target

SMALL = 32 * 1024
MOST_RATIO = 3.0  # four would be quadratic
UNDER_S = 0.01  # too short to measure a ratio
MOST_BYTES_PER_BYTE = 64
TRIES = 3
WITHOUT_LENGTH = {"image-archive"}  # most of its time is the file system's


def of_size(target: Target, size: int) -> bytes:
    if target.long is not None:
        return target.long(size)
    return repeated(b"", max(target.seeds(), key=len))(size)


def seconds(target: Target, data: bytes) -> float:
    best = 1e9
    for _ in range(TRIES):
        start = time.process_time()
        target.try_(data)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - WITHOUT_LENGTH))
def test_twice_the_bytes_take_about_twice_the_time(name: str) -> None:
    target = TARGETS[name]
    for _ in range(TRIES):
        half, whole = (seconds(target, of_size(target, SMALL * n)) for n in (1, 2))
        if whole < UNDER_S or whole <= MOST_RATIO * half:
            return
    pytest.fail(f"{whole:.3f} s for twice what takes {half:.3f} s")


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - WITHOUT_LENGTH))
def test_memory_is_bounded_by_the_input(name: str) -> None:
    target = TARGETS[name]
    data = of_size(target, SMALL)
    target.try_(data)
    tracemalloc.start()
    target.try_(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1024 * 1024 + MOST_BYTES_PER_BYTE * len(data)
