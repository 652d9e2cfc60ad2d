"""The drills themselves: what is broken, for how long, and what must be said about it."""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.crypto.x509 import load_certificate
from tests.cluster.conftest import eventually
from tests.cluster.machines import journal, machine_by_id, power
from tests.cluster.test_three_control_planes import (
    all_instances,
    back,
    boot,
    control_planes,
    etcdctl,
    node_of,
    nodes,
    workers,
)
from tests.drills.faults import (
    OtherClock,
    disk_full,
    kill_balancer,
    only_through,
    partitioned,
    suspended,
)
from tests.drills.loaded import say
from tests.drills.whole import join_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.conftest import Workspace

__all__ = ["DRILLS", "Drill", "Scene"]

_HOUR_S = 3600
_BACK_WITHIN_S = 240
_TOLERATED_S = 300
"""Of a clock that is an hour off: by how much less it may seem, for the time between two looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A cluster in a drill; `events` says what was done when, in seconds from the beginning."""

    workspace: Workspace
    machines: frozenset[str]
    chance: random.Random
    minutes: float
    began: float = field(default_factory=time.monotonic)
    events: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, workspace: Workspace, *, chance: random.Random, minutes: float) -> Scene:
        """Look at a whole cluster."""
        machines = frozenset(i for i, _, _ in all_instances(workspace))
        return cls(workspace=workspace, machines=machines, chance=chance, minutes=minutes)

    def tell(self, what: str) -> None:
        """Note an event."""
        at = round(time.monotonic() - self.began)
        self.events.append(f"{at} s: {what}")
        say(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """`do` breaks and mends, and gives findings; the API may be without success so long."""

    do: Callable[[Scene], tuple[str, ...]]
    longest_gap_s: float


def power_off_at_random(scene: Scene) -> tuple[str, ...]:
    """One control plane of three and one worker of two may be off at a time."""
    end = time.monotonic() + scene.minutes * 60
    found: list[str] = []
    seeds = scene.chance.sample(range(1 << 16), 2)
    threads = [
        threading.Thread(target=_switch, args=(scene, group, seed, end, found))
        for group, seed in zip((control_planes, workers), seeds, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tuple(found)


def _switch(
    scene: Scene,
    group: Callable[[Workspace], list[str]],
    seed: int,
    end: float,
    found: list[str],
) -> None:
    chance = random.Random(seed)  # noqa: S311 - chance, to be repeated
    while time.monotonic() < end and not found:
        time.sleep(chance.uniform(2, 20))
        victim, how = chance.choice(group(scene.workspace)), chance.choice(("kill", "off"))
        before = _boot(scene, victim)
        scene.tell(f"{victim} {how}")
        power(scene.workspace, victim, how)
        time.sleep(chance.uniform(1, 45))
        scene.tell(f"{victim} on")
        power(scene.workspace, victim, "on")
        if not eventually(partial(_back, scene, victim, before), seconds=_BACK_WITHIN_S):
            found.append(f"{victim} not back within {_BACK_WITHIN_S} s")
            return
        scene.tell(f"{victim} back")


def _boot(scene: Scene, victim: str) -> str:
    said: list[str] = []

    def asked() -> bool:
        try:
            said[:] = [boot(scene.workspace, victim)]
        except AssertionError:  # the API did not answer
            return False
        return True

    assert eventually(asked, seconds=60)
    return said[0]


def _back(scene: Scene, victim: str, before: str) -> bool:
    return back(scene.workspace, victim, before)


def partition_one_control_plane(scene: Scene) -> tuple[str, ...]:
    """Cut off the control plane whose etcd leads, for a minute."""
    victim = _etcd_leader(scene)
    scene.tell(f"{victim}, which leads etcd, is cut off")
    with partitioned(scene.workspace, victim):
        time.sleep(60)
    scene.tell("it is connected again")
    return ()


def _etcd_leader(scene: Scene) -> str:
    for status in etcdctl(scene.workspace, "endpoint", "status", "--cluster") or []:
        if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
            host = status["Endpoint"].removeprefix("https://").partition(":")[0]
            return next(i for i, a, _ in all_instances(scene.workspace) if a == host)
    raise AssertionError("etcd names no leader")


def restart_balancer(scene: Scene) -> tuple[str, ...]:
    """Kill the load balancer three times."""
    for _ in range(3):
        scene.tell("haproxy killed")
        kill_balancer(scene.workspace)
        time.sleep(10)
    return ()


def suspend(scene: Scene) -> tuple[str, ...]:
    """Stop all processes for a minute, as a laptop that sleeps does."""
    with suspended(scene.workspace) as count:
        scene.tell(f"{count} processes stopped")
        time.sleep(60)
    scene.tell("they go on")
    # an operator that took its own sleep for the nodes' death would act by now
    time.sleep(40)
    return ()


def fill_disks(scene: Scene) -> tuple[str, ...]:
    """Fill a worker's disk, then that of the control plane whose etcd leads, 45 s each."""
    for victim in (workers(scene.workspace)[0], _etcd_leader(scene)):
        with disk_full(scene.workspace, victim) as size:
            scene.tell(f"{victim}: disk full after {size >> 20} MiB")
            time.sleep(45)
            scene.tell(f"nodes meanwhile: {', '.join(_states(scene))}")
        scene.tell("room again")
        time.sleep(15)
    return ()


def _states(scene: Scene) -> list[str]:
    return [
        f"{n['metadata']['name']} "
        + ", ".join(c["type"] for c in n["status"]["conditions"] if c["status"] == "True")
        for n in nodes(scene.workspace)
    ]


def clock_ahead(scene: Scene) -> tuple[str, ...]:
    """Start a control plane with a clock an hour ahead; then a worker rejoins through it."""
    return _other_clock(scene, _HOUR_S)


def clock_behind(scene: Scene) -> tuple[str, ...]:
    """Start a control plane with a clock an hour behind; then a worker rejoins through it."""
    return _other_clock(scene, -_HOUR_S)


def _other_clock(scene: Scene, seconds: int) -> tuple[str, ...]:
    workspace, found = scene.workspace, list[str]()
    victim, worker = control_planes(workspace)[-1], workers(workspace)[0]
    others = [node_of(workspace, i)[1] for i in control_planes(workspace) if i != victim]
    started = int(time.time())
    found += _restart_with(scene, victim, seconds)
    if found:
        return tuple(found)
    if seconds > 0:
        node = machine_by_id(workspace, victim)
        if not eventually(
            lambda: "the clock has jumped ahead" in journal(node, "constellation-mesh.service"),
            seconds=90,
        ):
            found.append("nobody was told that the clock is ahead")
    found += _not_yet_valid(scene, victim)
    with only_through(workspace, worker, others=others):
        before = _boot(scene, worker)
        scene.tell(f"{worker} restarts, and reaches the JoinService of {victim} alone")
        power(workspace, worker, "kill")
        power(workspace, worker, "on")
        if not eventually(lambda: _back(scene, worker, before), seconds=_BACK_WITHIN_S):
            found.append(f"{worker} not back through {victim} within {_BACK_WITHIN_S} s")
    found += _times_in_log(scene, victim, seconds, since=started)
    before = _boot(scene, victim)
    scene.tell(f"{victim} restarts with the right clock")
    power(workspace, victim, "cycle")
    if not eventually(lambda: _back(scene, victim, before), seconds=_BACK_WITHIN_S):
        found.append(f"{victim} not back with the right clock within {_BACK_WITHIN_S} s")
    return tuple(found)


def _restart_with(scene: Scene, victim: str, seconds: int) -> tuple[str, ...]:
    before = _boot(scene, victim)
    power(scene.workspace, victim, "off")
    with OtherClock(scene.workspace, victim, seconds=seconds) as clock:
        scene.tell(f"{victim} starts with its clock off by {seconds} s")
        power(scene.workspace, victim, "on")
        there = eventually(lambda: _back(scene, victim, before), seconds=_BACK_WITHIN_S)
    scene.tell(f"laid over: {', '.join(clock.laid_over)}")
    if not there:
        return (f"{victim} not back with its clock off by {seconds} s",)
    return ()


def _not_yet_valid(scene: Scene, victim: str) -> tuple[str, ...]:
    """A certificate that a control plane makes for its own services must be good at once."""
    root = Path(f"/proc/{machine_by_id(scene.workspace, victim).pid}/root")
    path = root / "var/lib/constellation/api/operator/client.crt"
    path.unlink()
    if not eventually(path.exists, seconds=60):
        return (f"{victim}: no new certificate for the operator",)
    begins = load_certificate(path.read_bytes()).not_valid_before_utc.timestamp()
    if begins > time.time():
        return (f"{victim}: a new certificate is not valid before {begins - time.time():.0f} s",)
    return ()


def _times_in_log(scene: Scene, victim: str, seconds: int, *, since: int) -> tuple[str, ...]:
    """The log has what the node said, and beside it the JoinService's time, which is right."""
    name = node_of(scene.workspace, victim)[0]
    said: list[dict[str, int]] = []

    def told() -> bool:
        said[:] = [
            r
            for r in join_log(scene.workspace)
            if r["kind"] == "rejoined" and r["name"] == name and r["time"] >= since
        ]
        return bool(said)

    if not eventually(told, seconds=60):
        return (f"join log: no return of {name}",)
    off = said[-1]["node_time"] - said[-1]["time"]
    scene.tell(f"join log: {json.dumps({'node_time - time': off})}")
    if seconds > 0 and abs(off - seconds) > _TOLERATED_S:
        return (f"join log: the node's time is off by {off} s, expected about {seconds}",)
    return ()


DRILLS = {
    "partition": Drill(do=partition_one_control_plane, longest_gap_s=20),
    "balancer": Drill(do=restart_balancer, longest_gap_s=10),
    "disk": Drill(do=fill_disks, longest_gap_s=30),
    "suspend": Drill(do=suspend, longest_gap_s=60 + 30),
    "clock-ahead": Drill(do=clock_ahead, longest_gap_s=20),
    "clock-behind": Drill(do=clock_behind, longest_gap_s=20),
    "power": Drill(do=power_off_at_random, longest_gap_s=20),
}
