"""Measure what the README states: time to a cluster, bytes written, connect, start of the CLI.

`make bench` (root, caches warm) writes bench/results/NAME.json and prints a table. Every figure is
of one run on this machine; the machine stands in the result.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
_STEP = re.compile(r"^(?P<step>.+): done in (?P<seconds>[0-9.]+) s$")
_ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def machine() -> dict[str, Any]:
    """Describe what was measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "memory_gib": round(memory_kib / 1024 / 1024, 1),
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cli(folder: Path, *words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run the tool in a workspace; give seconds and result."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "constellation.cli.main", "-C", str(folder), *words],
        env=_ENVIRONMENT,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return time.monotonic() - start, done


def steps(text: str) -> dict[str, float]:
    """Read the seconds of each step from the progress lines."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if match := _STEP.match(line):
            found[match["step"]] = float(match["seconds"])
    return found


def disk_bytes(uid: str) -> dict[str, int]:
    """Give, for each machine, how many bytes of its state disk are allocated."""
    nodes = Path("/var/lib/constellation") / uid / "nodes"
    return {f.parent.name: f.stat().st_blocks * 512 for f in sorted(nodes.glob("*/state-disk"))}


def cluster(control_planes: int, workers: int) -> dict[str, Any]:
    """Bring up a cluster from warm caches, and remove it."""
    with tempfile.TemporaryDirectory(prefix="constellation-bench-") as name:
        folder = Path(name)
        cli(folder, "config", "generate", "local")
        conf = folder / "constellation-conf.yaml"
        sizes = iter((control_planes, workers))
        conf.write_text(re.sub(r"size: \d+", lambda _: f"size: {next(sizes)}", conf.read_text()))
        try:
            create_s, created = cli(folder, "create", "--yes")
            init_s, initialised = cli(folder, "init", "--yes")
            state = (folder / "constellation-state.yaml").read_text()
            uid = next(w.split()[1] for w in state.splitlines() if w.startswith("uid:"))
            written = disk_bytes(uid)
            verify_s, _ = cli(folder, "verify")
        finally:
            down_s, _ = cli(folder, "terminate", "--yes")
    return {
        "nodes": f"{control_planes}+{workers}",
        "create_s": round(create_s, 1),
        "init_until_all_ready_s": round(init_s, 1),
        "total_s": round(create_s + init_s, 1),
        "verify_s": round(verify_s, 1),
        "terminate_s": round(down_s, 1),
        "steps_s": {**steps(created.stderr), **steps(initialised.stderr)},
        "state_disk_bytes": written,
    }


def start_of_cli() -> dict[str, Any]:
    """Time `constellation --help`, five runs after one."""
    argv = [sys.executable, "-m", "constellation.cli.main", "--help"]
    seconds: list[float] = []
    for _ in range(6):
        start = time.monotonic()
        subprocess.run(argv, env=_ENVIRONMENT, cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.monotonic() - start)
    return {"help_median_s": round(sorted(seconds[1:])[2], 3)}


def connect() -> dict[str, Any]:
    """Run the attested connect benchmark, which also says whether it met its goal."""
    return _program("bench/attested_connect.py")


def clouds() -> dict[str, Any]:
    """Run the benchmark of what a cloud costs this program itself."""
    return _program("bench/clouds.py")


def _program(name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, name],
        env=_ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure all and write the results."""
    parts = {
        "cli": start_of_cli,
        "attested-connect": connect,
        "clouds": clouds,
        "cluster-1+1": lambda: cluster(1, 1),
        "cluster-3+2": lambda: cluster(3, 2),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, measure in parts.items():
        before = machine()
        result = measure()
        text = json.dumps({"machine": before, "result": result}, indent=1, sort_keys=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")
        print(f"{name}:")
        for key, value in result.items():
            if key not in ("steps_s", "state_disk_bytes"):
                print(f"  {key}: {value}")
        for key, value in result.get("steps_s", {}).items():
            if value >= 1:
                print(f"    {value:6.1f} s  {key}")


if __name__ == "__main__":
    main()
