"""Whether this machine can carry the cluster: asked before anything is built, all faults at once.

The provider's preflight tries each kernel feature (as root, in throwaway namespaces); memory and
disk are compared with what this configuration takes. Faults come with what to do about them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.base.errors import Conflict, Unavailable
from constellation.base.progress import Progress
from constellation.cli.privilege import run_as_root
from constellation.config.schema import ArtifactSource
from constellation.config.state import read_state
from constellation.providers.local.infrastructure import preflight_command
from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.base.progress import Report
    from constellation.cluster.context import Context
    from constellation.config.schema import Config

__all__ = [
    "Fault",
    "Room",
    "check_machine",
    "check_unless_running",
    "disk_left",
    "faults_of",
    "refuse",
    "room_faults",
    "shortage",
]

_STEP = "Machine check"
_PREFLIGHT_S = 60.0
_GB = 1000**3
# measured on the development machine: a control plane takes about 0.9 GB, a worker 0.4 GB
_MEMORY_BYTES: Mapping[Role, int] = {Role.CONTROL_PLANE: _GB, Role.WORKER: _GB // 2}
# what each node writes until it is Ready, and some room for pods
_NODE_DISK_BYTES = _GB
# an empty cache, measured: files, image and (built here) Go's modules and build cache
_CACHE_BYTES = {
    ArtifactSource.OFFICIAL: 5 * _GB,
    ArtifactSource.SOURCE: 12 * _GB,
    ArtifactSource.AUTO: 12 * _GB,
}
_CLOUDS = Path("/var/lib")
_LOW_DISK_BYTES = _GB
"""What is left when a running cluster is short of room: nodes' disks grow as pods write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is missing, what was found instead, and how to get it."""

    name: str
    problem: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is free, in bytes: memory, disk below /var/lib, disk of the cache."""

    memory: int
    disk: int
    cache: int


async def check_unless_running(context: Context) -> None:
    """Check the machine, unless this workspace's cloud runs on it already.

    Raises:
        UserError: the state file cannot be read.
        Conflict, Unavailable: see `check_machine`.
    """
    state = read_state(context.workspace.state)
    if state is not None:
        with contextlib.suppress(Unavailable):
            if await context.infrastructure(state.uid).observe() is not None:
                return
    await check_machine(context.config, cache=context.supplies.cache, report=context.report)


async def check_machine(config: Config, *, cache: Path, report: Report) -> None:
    """Try everything that a cluster of this configuration needs.

    Raises:
        Conflict: something is missing; the message has every fault.
        Unavailable: the check itself could not be run.
    """
    report(Progress(step=_STEP, detail="kernel features, memory, disk"))
    said = await run_as_root(preflight_command(), timeout_s=_PREFLIGHT_S)
    present, cached = await asyncio.to_thread(_look, cache)
    refuse((*faults_of(said), *room_faults(config, present, cached=cached)))
    report(Progress(step=_STEP, finished=True))


def faults_of(said: bytes) -> tuple[Fault, ...]:
    """Read what the preflight printed.

    Raises:
        Unavailable: it printed something else.
    """
    try:
        checks: list[dict[str, Any]] = json.loads(said)["checks"]
        return tuple(
            Fault(name=str(c["name"]), problem=str(c["problem"]), hint=str(c["hint"]))
            for c in checks
            if c["problem"]
        )
    except (ValueError, LookupError, TypeError) as error:
        raise Unavailable(f"the preflight gave no findings: {said[:200]!r}") from error


def room_faults(config: Config, present: Room, *, cached: bool) -> tuple[Fault, ...]:
    """Compare what is free with what the machines of `config` take."""
    groups = config.node_groups.values()
    count = sum(group.size for group in groups)
    source = config.provider.this_machine().artifact_source
    wanted = (
        ("memory", present.memory, sum(_MEMORY_BYTES[g.role] * g.size for g in groups),
         f"end other programs, or ask for fewer than {count} nodes in nodeGroups"),
        (f"disk below {_CLOUDS}", present.disk, _NODE_DISK_BYTES * count, "free some disk"),
        ("disk of the cache folder", present.cache, 0 if cached else _CACHE_BYTES[source],
         "free some disk, or set XDG_CACHE_HOME to a folder on a larger one"),
    )  # fmt: skip
    return tuple(
        Fault(
            name=name,
            problem=f"{free / _GB:.1f} GB free, {count} nodes need {need / _GB:.1f} GB",
            hint=hint,
        )
        for name, free, need, hint in wanted
        if free < need
    )


def disk_left(config: Config) -> int | None:
    """Give the bytes that are free where this machine keeps nodes' disks; None elsewhere."""
    return shutil.disk_usage(_CLOUDS).free if config.provider.local is not None else None


def shortage(left: int | None) -> str:
    """Say that a running cluster is about to fill its disk; empty while there is room.

    A node sees the room of its own disk, which is a sparse file: it learns of a full machine by
    errors in the middle of writing.
    """
    if left is None or left >= _LOW_DISK_BYTES:
        return ""
    return f"free some disk: {left / _GB:.1f} GB are left below {_CLOUDS}, where nodes' disks grow"


def refuse(faults: tuple[Fault, ...]) -> None:
    """Demand that there is no fault.

    Raises:
        Conflict: with every fault, and what to do about each.
    """
    if not faults:
        return
    lines = "\n".join(f"  {f.name}: {f.problem}\n    {f.hint}" for f in faults)
    raise Conflict(
        f"this machine lacks what a cluster needs:\n{lines}",
        hint="nothing was changed; the same command again looks anew",
    )


def _look(cache: Path) -> tuple[Room, bool]:
    """Say what is free, and whether the cache was filled before."""
    present = Room(
        memory=_available(Path("/proc/meminfo").read_text()),
        disk=shutil.disk_usage(_CLOUDS).free,
        cache=shutil.disk_usage(_existing(cache)).free,
    )
    return present, (cache / "index.json").exists() and (cache / "image").is_dir()


def _available(meminfo: str) -> int:
    # proc(5): "MemAvailable:   12345 kB"
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())
