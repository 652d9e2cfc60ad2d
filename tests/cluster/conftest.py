"""One real cluster for all tests that only use it: made by `mini up`, removed by `mini down`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace folder and the two programs that a user has for it."""

    folder: Path

    def constellation(
        self, *arguments: str, timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line tool as a user does, from this clone."""
        return subprocess.run(
            [sys.executable, "-m", "constellation.cli.main", "-C", str(self.folder), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

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


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Give a running 1+1 cluster; `mini down` afterwards must remove all of it."""
    workspace = Workspace(folder=tmp_path_factory.mktemp("mini"))
    up = workspace.constellation("mini", "up", "--yes", timeout_s=2400)
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        yield workspace
    finally:
        down = workspace.constellation("mini", "down", "--yes", timeout_s=300)
    assert down.returncode == 0, f"{down.stdout}\n{down.stderr}"
