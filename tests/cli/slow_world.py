"""Runs the command line against a world in which one thing never ends: `WHAT ARGUMENT …`.

WHAT is "artifacts" (create hangs while they are made) or "init" (the first node never answers).
Standard error says "hanging" when it does. A program of its own, to be interrupted from outside.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from constellation.base.progress import Progress
from constellation.cli import machine_check, main, privilege, world
from constellation.cluster import apply

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.cluster.context import Context
    from constellation.config.schema import Config
    from constellation.config.state import State
    from constellation.trust.artifact_list import ArtifactList


async def _hang(report: Report, step: str) -> None:
    report(Progress(step="What came before", finished=True))
    report(Progress(step=step, detail="hanging"))
    await asyncio.Event().wait()


async def _artifacts(_: object, _config: Config, *, report: Report) -> ArtifactList:
    await _hang(report, "Kubernetes")
    raise AssertionError


async def _image(_: object, *, report: Report) -> None:
    del report


async def _initialise(context: Context) -> tuple[State, tuple[object, ...]]:
    await _hang(context.report, "Start the cluster")
    raise AssertionError


async def _no_check(context: Context) -> None:
    del context


if __name__ == "__main__":
    # who starts the tests in the background has them ignore it, and a child inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    machine_check.check_unless_running = _no_check
    privilege.is_root = lambda: True
    if sys.argv[1] == "artifacts":
        world.LocalSupplies.artifacts = _artifacts  # type: ignore[method-assign,assignment] # this world's
        world.LocalSupplies.node_image = _image  # type: ignore[method-assign,assignment] # this world's
    else:
        apply.initialise = _initialise  # type: ignore[assignment] # this world's
    sys.exit(main.main(sys.argv[2:]))
