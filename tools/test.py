"""Run the project's checks in parts and print a table of what each took (make check, make test)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One command of the run; parts after a failed one still run, but for `needed` ones.

    `beside`: runs on what the parts after it leave of the cores, and says its lines at the end.
    """

    name: str
    argv: tuple[str, ...]
    needed: bool = False
    beside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a part."""

    name: str
    ok: bool
    seconds: float


def _python(name: str, *arguments: str, needed: bool = False, beside: bool = False) -> Part:
    argv = (sys.executable, *arguments)
    return Part(name=name, argv=argv, needed=needed, beside=beside)


def _clusters(name: str, marks: str, *paths: str, beside: bool = False) -> Part:
    words = ("-m", "pytest", "-q", "-m", f"cluster and {marks}", "--timeout=1500")
    return _python(name, *words, "--durations=12", *paths, beside=beside)


SOURCES = ("src", "tests", "tools", "bench")

CHECK = (
    _python("format", "-m", "ruff", "format", "--check", *SOURCES),
    _python("lint", "-m", "ruff", "check", *SOURCES),
    _python("types", "-m", "mypy"),
    Part(name="floors", argv=(str(BIN / "lint-imports"), "--no-cache")),
    _python(
        "unit and scenario tests", "-m", "pytest", "-q", "-n", "2", "-m", "not cluster", "tests"
    ),
)

PREPARE = (_python("prepare: packages, artifacts, image", "tools/prepare.py", needed=True),)

# a part's shared cluster ends with it: it costs the next part nothing
CLUSTER = (
    _clusters("cluster tests: clouds", "clouds", "tests/cluster", beside=True),
    _clusters("cluster tests: one of 1+1 nodes", "one", "tests/cluster"),
    _clusters("cluster tests: one that is upgraded", "changing", "tests/cluster"),
    _clusters("cluster tests: one of 3+2 nodes", "three", "tests/cluster"),
    _clusters("cluster tests: each its own", "own", "tests"),
)

PARTS = {"check": CHECK, "cluster": (*PREPARE, *CLUSTER), "all": (*PREPARE, *CHECK, *CLUSTER)}


def main() -> int:
    """Run the parts of the target named on the command line."""
    target = sys.argv[1] if len(sys.argv) > 1 else "check"
    if target != "check" and os.geteuid() != 0:
        argv = [sys.executable, __file__, target]
        return subprocess.run(["sudo", "--preserve-env=PYTHONPATH", *argv], check=False).returncode
    start = time.monotonic()
    rows = _run_all(PARTS[target], {**os.environ, "PYTHONPATH": str(ROOT / "src")})
    width = min(shutil.get_terminal_size().columns, 60)
    print("=" * width)
    for row in rows:
        print(f"{row.name:40} {'ok' if row.ok else 'FAILED':7} {row.seconds:8.1f} s")
    print(f"{'total':48} {time.monotonic() - start:8.1f} s")
    failed = sum(not row.ok for row in rows) + len(PARTS[target]) - len(rows)
    print(f"parts: {sum(row.ok for row in rows)} passed, {failed} failed")
    return 1 if failed else 0


def _run_all(parts: tuple[Part, ...], environment: dict[str, str]) -> list[Row]:
    rows: list[Row] = []
    with ThreadPoolExecutor() as threads:
        beside: list[Future[tuple[Row, str]]] = []
        for part in parts:
            if part.beside:
                print(f"== {part.name}: beside the others", flush=True)
                beside.append(threads.submit(_run_beside, part, environment))
                continue
            print(f"== {part.name}", flush=True)
            row = _run(part, environment, said=None)
            rows.append(row)
            if part.needed and not row.ok:
                break
        for running in beside:
            row, said = running.result()
            print(f"== {row.name}\n{said}", flush=True)
            rows.append(row)
    return rows


def _run(part: Part, environment: dict[str, str], *, said: IO[str] | None) -> Row:
    start = time.monotonic()
    done = subprocess.run(
        part.argv,
        cwd=ROOT,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
    )
    return Row(name=part.name, ok=done.returncode == 0, seconds=time.monotonic() - start)


def _run_beside(part: Part, environment: dict[str, str]) -> tuple[Row, str]:
    idle = replace(part, argv=("chrt", "--idle", "0", *part.argv))
    with tempfile.TemporaryFile("w+") as file:
        row = _run(idle, environment, said=file)
        file.seek(0)
        return row, file.read()


if __name__ == "__main__":
    sys.exit(main())
