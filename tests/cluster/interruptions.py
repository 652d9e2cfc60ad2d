"""`init` cut off after each step of its own list on a real cluster: `make interruptions`.

Three control planes wait. Three ways, each on a cluster of its own: the bootstrapper is killed, the
node is power-cycled, the command and the bootstrapper are killed together. Every time the same
command goes on; at the end there is one cluster. interruptions.json keeps what was done and how
long each took. The short form in `make test` is `test_interrupted_init.py`.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.config.state import read_state
from tests.cluster.conftest import Workspace
from tests.cluster.machines import inside, machine_by_id, power
from tests.fakes.node_rim import NodeRim
from tests.scenarios.test_interrupted_nodes import Founding

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HOW", "LIMIT_S", "create", "interrupted"]

_RESULTS = Path(__file__).resolve().with_suffix(".json")
LIMIT_S = 300
_END_S = 60


def create(folder: Path, *, control_planes: int) -> Workspace:
    """Make machines that wait for `init`; one worker."""
    workspace = Workspace(folder=folder)
    generated = workspace.constellation("config", "generate", "local")
    assert generated.returncode == 0, generated.stderr
    conf = folder / "constellation-conf.yaml"
    conf.write_text(conf.read_text().replace("size: 1\n", f"size: {control_planes}\n", 1))
    done = workspace.constellation("create", "--yes", timeout_s=900)
    assert done.returncode == 0, done.stderr
    return workspace


def chosen(workspace: Workspace) -> str:
    """Give the instance that the state file names."""
    state = read_state(workspace.folder / "constellation-state.yaml")
    assert state is not None
    assert state.init is not None
    return state.init.instance_id


def _kill_bootstrapper(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    del process
    pid = machine_by_id(workspace, chosen(workspace)).pid
    inside(pid, "systemctl", "kill", "--signal=KILL", "constellation-bootstrapper.service")


def _power_cycle(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    del process
    for action in ("kill", "on"):
        power(workspace, chosen(workspace), action)


def _kill_command(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    del workspace
    process.kill()


def _kill_both(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    _kill_command(workspace, process)
    _kill_bootstrapper(workspace, process)


def _interrupt(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    del workspace
    process.send_signal(signal.SIGINT)


HOW: dict[str, Callable[[Workspace, subprocess.Popen[str]], None]] = {
    "bootstrapper killed": _kill_bootstrapper,
    "node power-cycled": _power_cycle,
    "command and bootstrapper killed": _kill_both,
    "command killed": _kill_command,
    "command interrupted": _interrupt,
}


def interrupted(workspace: Workspace, how: str, *words: str) -> tuple[int, list[str], str]:
    """Run `init`, cut it off in a way of `HOW` when it says one of `words`.

    Gives exit code, lines, and what it said, "" for none of them. The command is left to find out
    by itself what became of its node.
    """
    said, cut = [], ""
    with workspace.begin("init", limit_s=LIMIT_S, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.strip())
            if not cut and (cut := next((w for w in words if w in line), "")):
                HOW[how](workspace, process)
                limit = threading.Timer(_END_S, process.kill)
                limit.daemon = True
                limit.start()
        process.wait()
    return process.returncode, said, cut


def steps() -> tuple[str, ...]:
    """Give the names of init's steps, from the code."""
    with tempfile.TemporaryDirectory() as folder:
        rim = NodeRim(folder=Path(folder) / "node")
        (rim.folder / "given").mkdir(parents=True)
        return tuple(step.name for step in Founding(rim).run().steps())


def _done(step: str) -> str:
    return f"Start the cluster: {step}: done"


def main() -> int:
    """Interrupt `init` after each step, in each way that the command line names."""
    parser = argparse.ArgumentParser(prog="make interruptions", description=__doc__)
    parser.add_argument("--how", default="", help="a word of the way")
    ways = [h for h in tuple(HOW)[:3] if parser.parse_args().how in h]
    kept = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    for how in ways:
        with tempfile.TemporaryDirectory(prefix="interruptions-") as folder:
            workspace = create(Path(folder) / "cluster", control_planes=3)
            try:
                took = _all_steps(workspace, how)
            finally:
                workspace.constellation("terminate", "--yes")
        kept[how] = {"seconds": took, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        _RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


def _all_steps(workspace: Workspace, how: str) -> dict[str, float]:
    """Cut off after each step; a short one may be done before the end comes, and is not repeated.

    Such a one has no time of its own: the cut after the one before it was a cut after it, too.
    """
    took: dict[str, float] = {}
    begun: set[str] = set()
    left = list(steps())
    while left:
        start = time.monotonic()
        code, said, cut = interrupted(workspace, how, *map(_done, left))
        begun.add(chosen(workspace))
        assert len(begun) == 1, f"init went to another node: {said[-20:]}"
        if not cut:
            assert code == 0, said[-20:]
            break
        at = [*map(_done, left)].index(cut)
        took[left[at]] = round(time.monotonic() - start, 1)
        before = f", and with the one before: {', '.join(left[:at])}" if at else ""
        print(f"{how} after {left[at]}: exit {code}, {took[left[at]]} s{before}", flush=True)  # noqa: T201
        del left[: at + 1]
    start = time.monotonic()
    done = workspace.constellation("init")
    assert done.returncode == 0, done.stderr
    took["to the end"] = round(time.monotonic() - start, 1)
    assert len(workspace.objects("nodes")) == 4
    verified = workspace.constellation("verify")
    assert verified.returncode == 0, verified.stderr
    return took


if __name__ == "__main__":
    sys.exit(main())
