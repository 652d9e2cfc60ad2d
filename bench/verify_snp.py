"""How long one SNP report takes from bytes to verdict, with chain and revocation list.

    PYTHONPATH=src:. python bench/verify_snp.py [--repetitions N] [--no-go]

A published report of a Milan (version 5) with its VCEK and the published CRL of its time, read,
verified, and appraised by a policy; beside it go-sev-guest (a Go module, built by the project's
toolchain) doing the same checks. Both run in turns on this machine; medians are compared. `warm`:
intermediates, list and the chip's certificate were seen before, as in a service that admits a node
again; `new_chip`: all but the chip's certificate; `cold`: nothing was seen before. `cpu_ms` is
processor time of the whole process: on a busy machine the steadier figure, and the one compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.attestation import snp
from constellation.attestation.roots import amd
from constellation.attestation.snp.verify import forget, forget_chips
from constellation.releases import lock
from constellation.releases.toolchain import ensure_toolchain
from tests.vectors import evidence

if TYPE_CHECKING:
    from collections.abc import Callable

_ITEM = evidence.items("amd-snp")["milan-v5-vcek-gcp"]
_NOW = datetime.fromisoformat(_ITEM["verify_at"])
_REPORT = evidence.read("amd-snp", _ITEM, "report")
_VEK = evidence.read("amd-snp", _ITEM, "vcek")
_CRL = (evidence.folder() / "amd-snp/crl/milan_crl.der").read_bytes()
_ASK = amd.INTERMEDIATES["SEV-Milan"]
_POLICY = snp.default_policy(
    report_data=bytes(64), measurements=(snp.parse_report(_REPORT).measurement,)
)
_Seconds = tuple[float, float]  # passed, of processor time
_SOURCE = Path(__file__).parent / "verify_snp"


def _once() -> None:
    authentic = snp.verify(
        snp.parse_report(_REPORT),
        endorsements=snp.Endorsements(vek=_VEK, intermediate=_ASK, crl=_CRL),
        roots=amd.ARKS,
        now=_NOW,
    )
    snp.appraise(authentic, policy=_POLICY)


def _ours(count: int, prepare: Callable[[], None]) -> _Seconds:
    """Time one verification; `prepare` forgets what the case has not seen."""
    wall = cpu = 0.0
    for _ in range(count):
        prepare()
        start, used = time.perf_counter(), time.process_time()
        _once()
        wall += time.perf_counter() - start
        cpu += time.process_time() - used
    return wall / count, cpu / count


def _go(folder: Path) -> subprocess.Popen[str]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constellation"
    wheel = lock.load().toolchain
    go = asyncio.run(ensure_toolchain(wheel, cache=cache, report=lambda _: None))
    build = (str(go.go), "build", "-o", str(folder / "go"), ".")
    subprocess.run(build, cwd=_SOURCE, env=dict(go.environment), check=True)
    files = {"report": _REPORT, "vek": _VEK, "ask": _ASK, "ark": amd.ARKS[0], "crl": _CRL}
    for role, data in files.items():
        (folder / role).write_bytes(data)
    command = [str(folder / "go"), _ITEM["verify_at"], *(f"{r}={folder / r}" for r in files)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _theirs(process: subprocess.Popen[str], count: int) -> _Seconds:
    assert process.stdin is not None  # noqa: S101 - it is piped
    assert process.stdout is not None  # noqa: S101 - it is piped
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    wall, cpu = process.stdout.readline().split()
    return int(wall) / count / 1e9, int(cpu) / count / 1e9


def _warm() -> None:
    """Forget nothing."""


def main() -> int:
    """Print medians in milliseconds and ratios as one JSON object; exit code 1 above the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--count", type=int, default=40, help="verifications a repetition")
    parser.add_argument("--no-go", action="store_true")
    options = parser.parse_args()
    cases: dict[str, Callable[[], None]] = {
        "warm": _warm,
        "new_chip": forget_chips,
        "cold": forget,
    }
    times: dict[str, list[_Seconds]] = {name: [] for name in (*cases, "go-sev-guest")}
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        other = None if options.no_go else _go(Path(name))
        _once()
        for _ in range(options.repetitions):
            for case, prepare in cases.items():
                times[case].append(_ours(options.count, prepare))
            if other is not None:
                times["go-sev-guest"].append(_theirs(other, options.count))
        if other is not None:
            other.stdin.close()  # type: ignore[union-attr] # it is piped
            other.wait()
    wall = {n: statistics.median(w for w, _ in t) * 1000 for n, t in times.items() if t}
    cpu = {n: statistics.median(c for _, c in t) * 1000 for n, t in times.items() if t}
    result: dict[str, object] = {
        "what": "SNP report, chain and CRL: bytes to verdict",
        "repetitions": options.repetitions,
        "wall_ms": {n: round(value, 3) for n, value in wall.items()},
        "cpu_ms": {n: round(value, 3) for n, value in cpu.items()},
        "load_1m": round(os.getloadavg()[0], 1),
    }
    theirs = cpu.get("go-sev-guest")
    if theirs is not None:
        result["ratio"] = {n: round(cpu[n] / theirs, 2) for n in cases}
    print(json.dumps(result))
    return int(theirs is not None and cpu["new_chip"] > theirs)


if __name__ == "__main__":
    sys.exit(main())
