"""What whoever owns the network sees: everything that crosses the bridge of a local cloud."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.conftest import Workspace

__all__ = ["captured", "network"]

_BUFFER_KIB = "65536"
"""More than a test sends: what does not fit would be missing in the capture."""


def network(workspace: Workspace) -> Path:
    """Give the cloud's network namespace, which only its daemon's mount namespace shows."""
    uid = workspace.uid
    found = subprocess.run(
        ["pgrep", "--full", f"providers.local.daemon.main.*{uid}"],
        capture_output=True,
        text=True,
        check=True,
    )
    daemon = found.stdout.split()[0]
    return Path(f"/proc/{daemon}/root/run/netns/constellation-{uid}")


@contextlib.contextmanager
def captured(workspace: Workspace, file: Path) -> Iterator[None]:
    """Record what crosses the bridge of this cluster's network."""
    inside = ("nsenter", f"--net={network(workspace)}")
    bridges = subprocess.run(
        [*inside, "ip", "-j", "link", "show", "type", "bridge"],
        capture_output=True,
        text=True,
        check=True,
    )
    bridge = json.loads(bridges.stdout)[0]["ifname"]
    with subprocess.Popen(
        [*inside, "tcpdump", "-i", bridge, "-U", "-s", "0", "-B", _BUFFER_KIB, "-w", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as capture:
        assert capture.stderr is not None
        while "listening on" not in capture.stderr.readline():
            assert capture.poll() is None
        try:
            yield
            _settled(file)
        finally:
            capture.terminate()
            said = capture.stderr.read()
        assert "\n0 packets dropped by kernel" in said, f"what was lost is not searched: {said}"


def _settled(file: Path) -> None:
    """Wait until the writer has caught up: nothing more for a second, 15 s at most."""
    size, end = -1, time.monotonic() + 15
    while size != (size := file.stat().st_size) and time.monotonic() < end:
        time.sleep(1)
