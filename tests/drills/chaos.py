"""Faults under load on a real 3+2 cluster, each a drill of its own (root).

    make drill-chaos                                   all, one after another on one cluster
    make drill-chaos DRILL=partition                   one; "suspend clock-ahead": these two
    python -m tests.drills.chaos --drill power --minutes 2 --seed 7

Load, all the while: a Service of 3 replicas at 50 requests a second and the API at 20 reads a
second through the load balancer, each answer within 5 s and without a second try; 5 writes a
second, each an object of its own. What is demanded: `verdict.py`. Results in bench/results.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.config.schema import DEFAULT_KUBERNETES_VERSION
from tests.cluster.conftest import Workspace
from tests.cluster.probes import ApiProbe, ServiceProbe
from tests.drills.drills import DRILLS, Scene
from tests.drills.ledger import Ledger
from tests.drills.loaded import NODE_PORT, RESULTS, create, deploy, say
from tests.drills.verdict import Figures, findings, log_findings
from tests.drills.whole import back_again, join_log, show

if TYPE_CHECKING:
    from tests.drills.drills import Drill

_BACK_WITHIN_S = 300
_CONTROL_PLANES, _WORKERS = 3, 2


def rehearse(name: str, drill: Drill, scene: Scene) -> Figures:
    """Run one drill under load; gives its figures, without a judgement."""
    workspace = scene.workspace
    log_before = join_log(workspace)
    service = ServiceProbe(workspace, port=NODE_PORT, every_s=0.1, threads=5)
    api, ledger = ApiProbe(workspace, every_s=0.1), Ledger(workspace, namespace=f"drill-{name}")
    with service, api, ledger:
        time.sleep(5)
        started = time.monotonic()
        found = drill.do(scene)
        ended = time.monotonic()
        back_s = back_again(workspace, machines=scene.machines, seconds=_BACK_WITHIN_S)
        took_s = time.monotonic() - started
        time.sleep(5)
    say("all well:", back_s is not None, "; first failures", service.failed[:3], api.failed[:3])
    say("writes not acknowledged:", ledger.failed[:5])
    return Figures(
        drill=name,
        nodes=f"{_CONTROL_PLANES}+{_WORKERS}",
        seconds=round(took_s),
        back_s=round(back_s - ended) if back_s is not None else None,
        acknowledged=len(ledger.acknowledged),
        lost=ledger.lost(),
        requests={"service": service.asked, "api": api.asked},
        failed={
            "service": len(service.failed),
            "api": len(api.failed),
            "writes": len(ledger.failed),
        },
        gaps_s={
            "api": round(api.gap.longest_s(), 1),
            "writes": round(ledger.gap.longest_s(), 1),
        },
        events=tuple(scene.events),
        findings=(*found, *log_findings(log_before, join_log(workspace))),
    )


def run(workspace: Workspace, names: list[str], *, minutes: float, seed: int) -> bool:
    """Run drills on a cluster; keep each one's figures; say whether all passed."""
    passed = True
    for name in names:
        drill = DRILLS[name]
        chance = random.Random(seed)  # noqa: S311 - chance, to be repeated
        scene = Scene.of(workspace, chance=chance, minutes=minutes)
        say("drill", name, "seed", seed)
        try:
            figures = rehearse(name, drill, scene)
        except Exception:  # noqa: BLE001 - a task's top: the other drills are still worth their time
            say("drill", name, "broke:", traceback.format_exc())
            show(workspace)
            passed = False
            continue
        bad = findings(figures, longest_gap_s=drill.longest_gap_s)
        text = json.dumps(figures.plain() | {"seed": seed, "failed_because": bad}, indent=1) + "\n"
        (RESULTS / f"drill-chaos-{name}.json").write_text(text)
        sys.stdout.write(text)
        passed = passed and not bad
        if bad:
            show(workspace)
        if figures.back_s is None:
            return False
    return passed


def main() -> int:
    """Run the drills; 0 if all passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drill", action="append", choices=sorted(DRILLS), default=[])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16))
    given = parser.parse_args()
    workspace = Workspace(folder=Path(tempfile.mkdtemp(prefix="drill-")))
    try:
        create(
            workspace,
            kubernetes=DEFAULT_KUBERNETES_VERSION,
            control_planes=_CONTROL_PLANES,
            workers=_WORKERS,
        )
        say("cluster is up")
        deploy(workspace)
        passed = run(workspace, given.drill or list(DRILLS), minutes=given.minutes, seed=given.seed)
    finally:
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
        say("terminate", gone.returncode, gone.stderr[-500:] if gone.returncode else "")
    if gone.returncode == 0:
        shutil.rmtree(workspace.folder)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
