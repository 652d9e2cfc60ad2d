"""The local cloud's daemon killed in the middle of making or removing a cloud, its record deleted.

Each point is seen from outside, by what the step before it has made; then `--destroy`, which
`mini down` calls, knows nothing but the cloud's id and must leave nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import ConstellationError
from constellation.base.progress import silent
from constellation.image import build, tools
from constellation.providers.local.daemon import kernel, loops
from constellation.providers.local.daemon.layout import Layout
from constellation.providers.local.infrastructure import (
    LocalInfrastructure,
    daemon_command,
    destroy_command,
)
from constellation.providers.protocols import Desired, Group, Role
from tests.cluster.test_local_daemon import CACHE, DOCUMENT, SOURCE
from tests.cluster.traces import control_groups, traces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="root makes the nodes"),
]

ID = "killtest"
WHERE = Layout.of(ID)
NODE = f"{ID}-control-0"
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE}
WITHIN_S = 30.0


def groups(part: str) -> list[Path]:
    return [
        p for p in control_groups() if p.parent.name == WHERE.name and fnmatchcase(p.name, part)
    ]


def processes(part: str) -> list[int]:
    found = []
    for group in groups(part):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    return found


def seen_by_daemon(path: Path) -> bool:
    """Say whether something is there in the daemon's mount namespace."""
    return any(
        os.path.lexists(f"/proc/{pid}/root{path}")  # a link in /proc, which pathlib resolves
        for pid in processes("daemon")[:1]
    )


def node_part() -> str:
    return next((p.name for p in groups("*") if p.name.rpartition("-")[2] == "0"), NODE)


def node_files(name: str) -> bool:
    return any(WHERE.state.glob(f"nodes/*/{name}"))


CREATE: dict[str, Callable[[], bool]] = {
    "its groups": lambda: bool(processes("daemon")),
    "network": lambda: seen_by_daemon(WHERE.netns()),
    "record": WHERE.state_file.exists,
    "socket": WHERE.socket.exists,
    "a node's folders": lambda: any(WHERE.state.glob("nodes/*")),
    "a node's TPM": lambda: any(processes(p.name) for p in groups("*.tpm")),
    "a node's image": lambda: seen_by_daemon(WHERE.run / "nodes/0/root/usr"),
    "measurements": lambda: seen_by_daemon(WHERE.run / "nodes/0/host/binary_bios_measurements"),
    "a node's disk": lambda: bool(loops.backing_devices(WHERE.state)),
    "a node's processes": lambda: bool(processes(node_part())),
    "a node that boots": lambda: len(processes(node_part())) > 3,
}
DESTROY: dict[str, Callable[[], bool]] = {
    "nodes are told": lambda: len(processes(node_part())) <= 2,
    "nodes are gone": lambda: not processes(node_part()),
    "network is gone": lambda: not seen_by_daemon(WHERE.netns()),
    "folders are gone": lambda: not WHERE.state_file.exists(),
}


@pytest.fixture(scope="module")
def desired() -> tuple[Path, Desired]:
    """Make tools and image; one node is enough to have every kind of thing."""
    root = asyncio.run(tools.ensure_tools_root(CACHE, silent))
    image = asyncio.run(build.ensure_node_image(CACHE, silent))
    return root, Desired(
        groups=(Group(name="control", role=Role.CONTROL_PLANE, size=1),),
        image_path=str(image.path),
        node_document=DOCUMENT,
        artifacts_path="",
        state_disk_bytes=64 * 1024**2,
    )


def when(reached: Callable[[], bool]) -> None:
    """Return in the moment in which a step is seen to be done."""
    end = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < end, "this step was not seen"
        time.sleep(0.002)


def kill_daemon() -> None:
    for pid in processes("daemon"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    WHERE.state_file.unlink(missing_ok=True)


def removed_without_a_trace(before: dict[str, list[str]]) -> None:
    done = subprocess.run(
        destroy_command(ID), env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 10
    while (after := traces(ID)) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert after == before


async def make(root: Path, wanted: Desired) -> None:
    """Start the daemon and make the cloud; what the daemon's death makes of it is no matter."""
    started = await asyncio.create_subprocess_exec(
        *daemon_command(ID, tools_root=root), env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    await started.wait()
    with contextlib.suppress(ConstellationError):
        await LocalInfrastructure(ID).apply(wanted, report=silent)


@pytest.mark.parametrize("step", CREATE)
async def test_killed_while_it_makes_a_cloud(desired: tuple[Path, Desired], step: str) -> None:
    before = traces(ID)
    making = asyncio.create_task(make(*desired))
    try:
        await asyncio.to_thread(when, CREATE[step])
    finally:
        kill_daemon()
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        kill_daemon()  # one that `making` started meanwhile
    removed_without_a_trace(before)


@pytest.mark.parametrize("step", DESTROY)
async def test_killed_while_it_removes_a_cloud(desired: tuple[Path, Desired], step: str) -> None:
    before = traces(ID)
    await make(*desired)
    assert await kernel.until(lambda: len(processes(node_part())) > 3, deadline_s=WITHIN_S)

    async def destroy() -> None:
        with contextlib.suppress(ConstellationError):
            await LocalInfrastructure(ID).destroy(report=silent)

    removing = asyncio.create_task(destroy())
    await asyncio.to_thread(when, DESTROY[step])
    kill_daemon()
    await removing
    removed_without_a_trace(before)
