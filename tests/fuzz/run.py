"""Fuzz targets with atheris, each in a process of its own: `make fuzz [SECONDS=60] [TARGET=name]`.

`make fuzz UNTIL=600` goes on where earlier runs stopped: each target gets what it lacks.

    1 seeds of our fakes and the kept corpus → libFuzzer for 3/4 of the time
    2 what it found is minimised (libFuzzer's merge) and kept
    3 the rest of the time begins with published evidence too; nothing of that is kept
    4 results.json: seconds, executions, coverage edges and findings, summed over all runs

Seconds are those that a core worked for the target, never more than went by: a busy machine's
hour counts for what was got of it.

A finding is written to findings/NAME; from then on it is replayed by `make check`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.fuzz import kept
from tests.fuzz.table import TARGETS
from tests.vectors import evidence

if TYPE_CHECKING:
    from tests.fuzz.target import Target

_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE / "results.json"
_MEMORY_MIB, _ONE_INPUT_S = 1024, 5
_KEPT_BYTES = 28 * 1024
_DONE = re.compile(r"^#(\d+)\s+\S+\s+cov: (\d+) ft: \d+", re.MULTILINE)
_LAST = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_MOST_FINDINGS = 3
_SHORTEST_S = 20
_STARVED = 20
"""How many times slower a busy machine may be before a run counts as stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of libFuzzer; `seconds` of a core's time; `finding` is the input that ended it."""

    seconds: float
    executions: int
    edges: int
    finding: bytes | None
    said: str


def fuzz(target: Target, *, seconds: int, work: Path, real: bool) -> Outcome:
    """Run one target for some seconds in folder `work`; `real`: begin with evidence too."""
    corpus, crashes = work / ("real" if real else "own"), work / "crashes"
    for folder in (corpus, crashes):
        folder.mkdir(exist_ok=True)
    inputs = [*target.seeds(), *kept.read(target.name), *kept.findings(target.name)]
    if real:
        inputs += [p.read_bytes() for g in target.evidence for p in evidence.folder().glob(g)]
    for number, data in enumerate(inputs):
        if len(data) <= 4 * target.max_bytes:
            (corpus / f"seed-{number}").write_bytes(data)
    start, worked = time.monotonic(), _worked_s()
    ran = _child(
        target,
        work,
        f"-max_total_time={seconds}",
        f"-max_len={target.max_bytes}",
        f"-timeout={_ONE_INPUT_S}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-artifact_prefix={crashes}/",
        "-print_final_stats=1",
        "-reload=0",
        str(corpus),
        limit_s=_STARVED * seconds + 120,
    )
    steps, last = _DONE.findall(ran.stderr), _LAST.search(ran.stderr)
    found = sorted(crashes.iterdir())
    return Outcome(
        seconds=min(time.monotonic() - start, _worked_s() - worked, seconds),
        executions=int(last[1]) if last else int(steps[-1][0]) if steps else 0,
        edges=max((int(cov) for _, cov in steps), default=0),
        finding=found[0].read_bytes() if found else None,
        said=ran.stderr[-3000:] + ran.stdout[-3000:],
    )


def _worked_s() -> float:
    """Give the seconds that a core worked for this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def minimise(target: Target, *, work: Path) -> int:
    """Keep the fewest inputs that reach what all of them reached; give their number."""
    own, few = work / "own", work / "few"
    few.mkdir()
    arguments = ("-merge=1", f"-max_len={target.max_bytes}", str(few), str(own))
    _child(target, work, *arguments, limit_s=_STARVED * 600)
    inputs = [path.read_bytes() for path in few.iterdir()]
    return kept.write(target.name, inputs, most_bytes=_KEPT_BYTES) if inputs else 0


def one(target: Target, *, seconds: int) -> tuple[Outcome, ...]:
    """Do all of one target; findings are written down and the rest of its time is not used."""
    with TemporaryDirectory(prefix=f"fuzz-{target.name}-") as folder:
        work = Path(folder)
        share = seconds * 3 // 4 if target.evidence else seconds
        outcomes = [fuzz(target, seconds=max(1, share), work=work, real=False)]
        if outcomes[0].finding is None:
            minimise(target, work=work)
            if target.evidence:
                rest = max(1, seconds - share)
                outcomes.append(fuzz(target, seconds=rest, work=work, real=True))
    for outcome in outcomes:
        if outcome.finding is not None:
            _write_down(target, outcome)
    return tuple(outcomes)


def _write_down(target: Target, outcome: Outcome) -> None:
    assert outcome.finding is not None
    folder = kept.FINDINGS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.iterdir())) < _MOST_FINDINGS:
        (folder / f"{len(list(folder.iterdir()))}.bin").write_bytes(outcome.finding)
    sys.stdout.write(f"FINDING in {target.name}:\n{outcome.said}\n")


def _child(
    target: Target, work: Path, *arguments: str, limit_s: float
) -> subprocess.CompletedProcess[str]:
    root, again = _HERE.parent.parent, work / "again"
    words = (sys.executable, "-m", "tests.fuzz.child", target.name, str(again))
    again.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    again.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [*words, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
        env=environment,
        cwd=root,
        stdin=subprocess.DEVNULL,
    )


def _add(name: str, outcomes: tuple[Outcome, ...]) -> dict[str, Any]:
    with _HERE.joinpath("run.py").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs may share the file
        return _sum(name, outcomes)


def _sum(name: str, outcomes: tuple[Outcome, ...]) -> dict[str, Any]:
    results = json.loads(_RESULTS.read_bytes()) if _RESULTS.exists() else {}
    old = results.get(name, {"seconds": 0, "executions": 0, "edges": 0, "findings": 0})
    results[name] = {
        "seconds": old["seconds"] + round(sum(o.seconds for o in outcomes)),
        "executions": old["executions"] + sum(o.executions for o in outcomes),
        "edges": max(old["edges"], *(o.edges for o in outcomes)),
        "findings": old["findings"] + sum(o.finding is not None for o in outcomes),
    }
    _RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    new: dict[str, Any] = results[name]
    return new


def _lacks(name: str, until: int) -> int:
    """Give the seconds that a target's sum lacks."""
    results = json.loads(_RESULTS.read_bytes()) if _RESULTS.exists() else {}
    return max(0, until - int(results.get(name, {"seconds": 0})["seconds"]))


def _run(name: str, *, seconds: int) -> int:
    """Run one target, add it to the sums and say so; give the number of findings."""
    outcomes = one(TARGETS[name], seconds=seconds)
    row = _add(name, outcomes)
    found = sum(o.finding is not None for o in outcomes)
    executions = sum(o.executions for o in outcomes)
    line = f"{name:28} {executions:10} executions {row['edges']:6} edges {found} findings\n"
    sys.stdout.write(line)
    sys.stdout.flush()
    return found


def main() -> int:
    """Run the targets that were asked for, one after the other; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    parser.add_argument("--until", type=int, help="run what each lacks of this sum of seconds")
    chosen = parser.parse_args()
    bad = 0
    for name in chosen.target or TARGETS:
        if chosen.until is None:
            bad += _run(name, seconds=chosen.seconds)
            continue
        while not bad and (left := _lacks(name, chosen.until)):
            bad += _run(name, seconds=max(_SHORTEST_S, left))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
