"""Run the project's checks in parts and print a table of what each took (make check, make test)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One command of the run; parts after a failed one still run, but for `needed` ones."""

    name: str
    argv: tuple[str, ...]
    needed: bool = False


def _python(name: str, *arguments: str, needed: bool = False) -> Part:
    return Part(name=name, argv=(sys.executable, *arguments), needed=needed)


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

CLUSTER = (
    _python(
        *("cluster tests", "-m", "pytest", "-q", "-m", "cluster", "--timeout=1500"),
        *("--durations=20", "tests"),
    ),
)

PARTS = {"check": CHECK, "cluster": (*PREPARE, *CLUSTER), "all": (*PREPARE, *CHECK, *CLUSTER)}


def main() -> int:
    """Run the parts of the target named on the command line."""
    target = sys.argv[1] if len(sys.argv) > 1 else "check"
    if target != "check" and os.geteuid() != 0:
        argv = [sys.executable, __file__, target]
        return subprocess.run(["sudo", "--preserve-env=PYTHONPATH", *argv], check=False).returncode
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    rows: list[tuple[str, str, float]] = []
    for part in PARTS[target]:
        print(f"== {part.name}", flush=True)
        start = time.monotonic()
        returncode = subprocess.run(
            part.argv, cwd=ROOT, env=environment, check=False, stdin=subprocess.DEVNULL
        ).returncode
        rows.append((part.name, "ok" if returncode == 0 else "FAILED", time.monotonic() - start))
        if returncode != 0 and part.needed:
            break
    width = min(shutil.get_terminal_size().columns, 60)
    print("=" * width)
    for name, verdict, seconds in rows:
        print(f"{name:40} {verdict:7} {seconds:8.1f} s")
    print(f"{'total':48} {sum(r[2] for r in rows):8.1f} s")
    failed = sum(1 for r in rows if r[1] != "ok") + len(PARTS[target]) - len(rows)
    print(f"parts: {len(rows) - sum(r[1] != 'ok' for r in rows)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
