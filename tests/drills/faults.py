"""What breaks a running local cluster, from outside as its data centre could; each is undone.

All of it is done by root of this machine to one cloud's own processes, namespaces and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pyroute2 import IPRoute

from constellation.providers.local.daemon import address, kernel
from constellation.providers.local.daemon.cgroups import Cgroups
from constellation.providers.local.daemon.layout import Layout
from tests.cluster.machines import inside, machine_by_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constellation.providers.local.daemon.records import CloudRecord
    from tests.cluster.conftest import Workspace

__all__ = ["OtherClock", "disk_full", "kill_balancer", "only_through", "partitioned", "suspended"]

_UCRED = struct.Struct("=3i")  # unix(7), SO_PEERCRED
_PYTHON = ("usr/lib/constellation/python", "run/constellation/services/python")
_CLOCK = "constellation/base/clock.py"
_COMPILED = "constellation/base/__pycache__/clock.cpython-313.pyc"
_READS_TIME = "datetime.now(UTC)"
_FILLER = "/run/state/filler"


def _layout(workspace: Workspace) -> Layout:
    return Layout.of(workspace.uid)


def _record(workspace: Workspace) -> CloudRecord:
    record = address.load(_layout(workspace).state_file)
    assert record is not None
    return record


def _daemon(workspace: Workspace) -> int:
    """Give the daemon's process id: who listens on its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ask:
        ask.connect(str(_layout(workspace).socket))
        data = ask.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid: int = _UCRED.unpack(data)[0]
    return pid


@contextlib.contextmanager
def partitioned(workspace: Workspace, instance_id: str) -> Iterator[None]:
    """Cut a machine off from everybody, the load balancer included, without a word to anyone."""
    layout = _layout(workspace)
    netns = Path(f"/proc/{_daemon(workspace)}/root") / layout.netns().relative_to("/")
    port = f"n{_record(workspace).node(instance_id).index}"

    def switch(state: str) -> None:
        def work() -> None:
            with IPRoute() as ip:
                (link,) = ip.link_lookup(ifname=port)
                ip.link("set", index=link, state=state)

        asyncio.run(kernel.inside(work, net=netns))

    switch("down")
    try:
        yield
    finally:
        switch("up")


def kill_balancer(workspace: Workspace) -> None:
    """Kill haproxy; the daemon starts it again."""
    os.kill(_record(workspace).haproxy.pid, signal.SIGKILL)


@contextlib.contextmanager
def suspended(workspace: Workspace) -> Iterator[int]:
    """Stop every process of the cluster, the daemon too; gives how many."""
    groups = Cgroups.find(_layout(workspace).name)
    stopped: list[int] = []
    try:
        stopped.append(_daemon(workspace))
        os.kill(stopped[0], signal.SIGSTOP)
        # one that forked before it was reached left a child
        while new := [p for p in groups.processes() if p not in stopped and p]:
            stopped += new
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
        yield len(stopped)
    finally:
        for pid in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def disk_full(workspace: Workspace, instance_id: str) -> Iterator[int]:
    """Fill a machine's state disk to the last block that root may have; gives the bytes."""
    pid = machine_by_id(workspace, instance_id).pid
    filler = Path(f"/proc/{pid}/root{_FILLER}")
    try:
        yield _fill(filler)
    finally:
        # of the init that runs now: the node may have been restarted
        now = machine_by_id(workspace, instance_id).pid or pid
        Path(f"/proc/{now}/root{_FILLER}").unlink(missing_ok=True)


def _fill(filler: Path) -> int:
    size = 0
    with filler.open("wb", buffering=0) as file:
        for step in (1 << 28, 1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
    return size


@contextlib.contextmanager
def only_through(workspace: Workspace, instance_id: str, *, others: list[str]) -> Iterator[None]:
    """Let a machine reach no JoinService at these addresses; its namespace outlives a power-off."""
    rules = (
        "table ip drill { chain out { type filter hook output priority -300; "
        f"ip daddr {{ {', '.join(others)} }} tcp dport 30090 drop; }}; }}"
    )

    # the node's own nft: another version does not understand what is there
    said = inside(machine_by_id(workspace, instance_id).pid, "nft", rules)
    assert not said, said
    try:
        yield
    finally:
        # gone already where the node made its rules anew
        inside(machine_by_id(workspace, instance_id).pid, "nft", "delete", "table", "ip", "drill")


class OtherClock:
    """From a machine's next start on, its programs of ours see a time that is off by `seconds`.

    Containers share the kernel's clock: the one line that reads it is laid over, in the node's own
    namespace, before the programs start. Go programs keep the real time.
    """

    def __init__(self, workspace: Workspace, instance_id: str, *, seconds: int) -> None:
        self._workspace, self._instance_id, self._seconds = workspace, instance_id, seconds
        self._before = machine_by_id(workspace, instance_id).pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._lay_over)
        self.laid_over: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def _lay_over(self) -> None:
        pid = self._started()
        left = list(_PYTHON)
        while left and not self._end.wait(0.02):
            for folder in left.copy():
                if Path(f"/proc/{pid}/root/{folder}/{_CLOCK}").exists():
                    self._bind(pid, folder)
                    left.remove(folder)
                    self.laid_over.append(folder)

    def _started(self) -> int:
        """Wait for the next init: by the cgroup, which is there before the daemon says so."""
        groups = Cgroups.find(_layout(self._workspace).name)
        while not self._end.wait(0.02):
            for pid in groups.processes(self._instance_id):
                if pid != self._before and _is_init(pid):
                    return pid
        return 0

    def _bind(self, pid: int, folder: str) -> None:
        root = Path(f"/proc/{pid}/root")
        text = (root / folder / _CLOCK).read_text()
        assert text.count(_READS_TIME) == 1
        shifted = text.replace(
            _READS_TIME, f"datetime.fromtimestamp(time.time() + {self._seconds}, UTC)"
        )
        own = root / "run/drill-clock"
        own.mkdir(exist_ok=True)
        (own / "clock.py").write_text(shifted)
        # without a compiled form Python reads the text
        (own / "clock.pyc").write_bytes(b"")
        for name, over in (("clock.py", _CLOCK), ("clock.pyc", _COMPILED)):
            if (root / folder / over).exists():
                said = inside(
                    pid, "mount", "--bind", f"/run/drill-clock/{name}", f"/{folder}/{over}"
                )
                assert not said, said


def _is_init(pid: int) -> bool:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = next(li for li in status.splitlines() if li.startswith("NSpid:")).split()[1:]
        return len(numbers) > 1 and numbers[-1] == "1"
    return False
