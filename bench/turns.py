"""How are verifiers compared? In turns, in one run, each a few times in a row; medians count.

`wall_ms` is time that passed, `cpu_ms` processor time of the whole process that works: on a machine
with other work the steadier figure. A Go program of ours in a folder beside this file does with
another library what the Python does; it is built by the project's pinned toolchain, its modules
come by the ordinary proxy.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.releases import lock
from constellation.releases.toolchain import ensure_toolchain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["GoPeer", "Times", "compare", "python"]

Times = tuple[float, float]
"""Milliseconds of one call: passed, of processor time."""

_HERE = Path(__file__).parent


def python(call: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> Any:
    """Give a function that times some calls in a row; `before` each is not timed."""

    def measure(count: int) -> Times:
        wall = cpu = 0.0
        for _ in range(count):
            before()
            start, used = time.perf_counter(), time.process_time()
            call()
            cpu += time.process_time() - used
            wall += time.perf_counter() - start
        return 1000 * wall / count, 1000 * cpu / count

    return measure


class GoPeer:
    """A running Go program that verifies as often as it is told, given files by role."""

    def __init__(self, source: str, files: Mapping[str, bytes], *arguments: str) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constellation"
        wheel = lock.load().toolchain
        go = asyncio.run(ensure_toolchain(wheel, cache=cache, report=lambda _: None))
        self._folder = tempfile.TemporaryDirectory(prefix="bench")
        folder = Path(self._folder.name)
        build = (str(go.go), "build", "-o", str(folder / "peer"), ".")
        subprocess.run(build, cwd=_HERE / source, env=dict(go.environment), check=True)
        for role, data in files.items():
            (folder / role).write_bytes(data)
        given = (f"{role}={folder / role}" for role in files)
        self._process = subprocess.Popen(
            [str(folder / "peer"), *arguments, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, count: int) -> Times:
        """Have it verify `count` times in a row."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        wall, cpu = self._process.stdout.readline().split()
        return int(wall) / count / 1e6, int(cpu) / count / 1e6

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._folder.cleanup()


def compare(
    what: str,
    ours: Mapping[str, Callable[[int], Times]],
    others: Mapping[str, Callable[[int], Times]],
    *,
    repetitions: int,
    count: int,
) -> dict[str, Any]:
    """Run all in turns; give medians, and the ratio of each of ours to each other."""
    every = {**ours, **others}
    found: dict[str, list[Times]] = {name: [] for name in every}
    for measure in every.values():
        measure(1)
    for done in range(repetitions):
        for name, measure in every.items():
            found[name].append(measure(count))
        if done % 10 == 0:
            print(f"{what}: {done} of {repetitions} repetitions", file=sys.stderr, flush=True)
    wall = {name: statistics.median(w for w, _ in times) for name, times in found.items()}
    cpu = {name: statistics.median(c for _, c in times) for name, times in found.items()}

    def ratios(medians: Mapping[str, float]) -> dict[str, dict[str, float]]:
        return {o: {n: round(medians[n] / medians[o], 2) for n in ours} for o in others}

    return {
        "what": what,
        "repetitions": repetitions,
        "in_a_row": count,
        "wall_ms": {name: round(value, 3) for name, value in wall.items()},
        "cpu_ms": {name: round(value, 3) for name, value in cpu.items()},
        "ratio_wall": ratios(wall),
        "ratio_cpu": ratios(cpu),
    }
