"""Real clusters that tests share: 1+1 by `mini up`, 3+2 step by step; each is removed again.

`tests/conftest.py` makes a part of `make test` of each.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


def eventually(check: Callable[[], bool], *, seconds: float) -> bool:
    """Ask twice a second until the answer is yes or the time is over; give the last answer."""
    end = time.monotonic() + seconds
    while not (done := check()) and time.monotonic() < end:
        time.sleep(0.5)
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace folder and the two programs that a user has for it."""

    folder: Path
    cache: Path | None = None
    """Another folder than the user's for XDG_CACHE_HOME."""

    @property
    def uid(self) -> str:
        """The cluster's id, from its state file."""
        state = (self.folder / "constellation-state.yaml").read_text()
        return next(line.split()[1] for line in state.splitlines() if line.startswith("uid:"))

    def constellation(
        self, *arguments: str, timeout_s: float = 600, within: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line tool as a user does, from this clone; `within`: words before it."""
        return subprocess.run(
            [*within, *self._words(arguments)],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @contextlib.contextmanager
    def begin(
        self, *arguments: str, limit_s: float, stderr: int = subprocess.DEVNULL
    ) -> Iterator[subprocess.Popen[str]]:
        """Start the command line tool; it is killed after `limit_s`, or when the block ends."""
        with subprocess.Popen(
            self._words(arguments),
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        ) as process:
            timer = threading.Timer(limit_s, process.kill)
            timer.start()
            try:
                yield process
            finally:
                timer.cancel()
                process.kill()

    def _words(self, arguments: tuple[str, ...]) -> list[str]:
        tool = (sys.executable, "-m", "constellation.cli.main")
        return [*tool, "-C", str(self.folder), *arguments]

    @property
    def _environment(self) -> dict[str, str]:
        cache = {"XDG_CACHE_HOME": str(self.cache)} if self.cache else {}
        return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **cache}

    def kubectl(
        self, *arguments: str, stdin: str = "", timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the cluster's own kubectl with the user's kubeconfig."""
        kubeconfig = self.folder / "constellation-admin.conf"
        return subprocess.run(
            [str(self.folder / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def objects(self, *arguments: str) -> list[dict[str, object]]:
        """Get Kubernetes objects as parsed JSON."""
        done = self.kubectl("get", *arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        items: list[dict[str, object]] = json.loads(done.stdout)["items"]
        return items


def _mini(folder: Path) -> Iterator[Workspace]:
    workspace = Workspace(folder=folder)
    up = workspace.constellation("mini", "up", "--yes", timeout_s=2400)
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        yield workspace
    finally:
        down = workspace.constellation("mini", "down", "--yes", timeout_s=300)
    assert down.returncode == 0, f"{down.stdout}\n{down.stderr}"


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Give a running 1+1 cluster; `mini down` afterwards must remove all of it."""
    yield from _mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="session")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Give a 1+1 cluster whose nodes are added, replaced and removed by tests."""
    yield from _mini(tmp_path_factory.mktemp("changing"))


@pytest.fixture(scope="session")
def web(mini: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give the 1+1 cluster with what `tests.cluster.web` says, deployed once."""
    from tests.cluster.web import deploy  # noqa: PLC0415 - it imports from here

    deploy(mini, tmp_path_factory.mktemp("web"))
    return mini


@pytest.fixture(scope="session")
def ha(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Give a running 3+2 cluster, made step by step; `terminate` removes it."""
    workspace = Workspace(folder=tmp_path_factory.mktemp("ha"))
    generated = workspace.constellation("config", "generate", "local")
    assert generated.returncode == 0, generated.stderr
    conf = workspace.folder / "constellation-conf.yaml"
    before, one = conf.read_text(), "size: 1\n"
    assert before.count(one) == 2, before
    conf.write_text(before.replace(one, "size: 3\n", 1).replace(one, "size: 2\n", 1))
    try:
        for verb in ("create", "init"):
            done = workspace.constellation(verb, "--yes", timeout_s=2400)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        yield workspace
    finally:
        gone = workspace.constellation("terminate", "--yes", timeout_s=300)
    assert gone.returncode == 0, f"{gone.stdout}\n{gone.stderr}"
