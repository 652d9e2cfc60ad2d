"""Starting the daemon so that it outlives its caller: in a session and, under systemd, a scope.

Where systemd owns the one tree of cgroup v2, processes of ours may only be in a group that it gave
away: a transient scope with Delegate=yes. A scope lives as long as any process in it, so nodes keep
it when the daemon ends, and the next daemon walks back in by itself (`Cgroups.enter`). A service
would not do: systemd starts it in the unit's own group, which has groups below it and may
therefore take no process any more.
Source: systemd-run(1), systemd.scope(5), systemd.resource-control(5); docs/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import constellation
from constellation.base.errors import Unavailable
from constellation.base.told import told
from constellation.providers.local.daemon.cgroups import Cgroups, scope_name
from constellation.providers.local.daemon.spawn import ENVIRONMENT

if TYPE_CHECKING:
    from constellation.providers.local.daemon.layout import Layout

__all__ = ["detached", "scope_command"]

_DEADLINE_S = 120.0
_STOP_S = 10
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def detached(where: Layout, arguments: list[str]) -> None:
    """Start `main --foreground` with these arguments, and wait until its socket answers.

    Raises:
        ConstellationError: what ended it.
        Unavailable: it did not come up in 2 minutes; the message has the end of its log.
    """
    where.state.mkdir(parents=True, exist_ok=True)
    if _answers(where):
        return
    python = (sys.executable, "-m", "constellation.providers.local.daemon.main")
    argv = (*python, "--foreground", *arguments)
    groups = Cgroups.find(where.name)
    if not groups.given():
        argv = scope_command(where, argv)
    with where.log.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**ENVIRONMENT, **_python_path(), **_network()},
            start_new_session=True,
        )
    end = time.monotonic() + _DEADLINE_S
    while not _answers(where):
        if process.poll() not in (None, 0) or time.monotonic() > end:
            with where.log.open("rb") as file:
                file.seek(begin)
                words = file.read().decode(errors="replace").strip()
            if error := told(words):
                raise error
            raise Unavailable(f"the local cloud {where.id} did not start: {words[-1500:]}")
        time.sleep(0.05)
    process.returncode = 0  # it lives on, and is not ours to wait for


def scope_command(where: Layout, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Give the words that become `argv` in a new scope named after the cloud."""
    return (
        "systemd-run",
        "--scope",
        f"--unit={scope_name(where.name)}",
        "--collect",
        "--quiet",
        "--property=Delegate=yes",
        "--property=TasksMax=infinity",
        # when the machine is switched off: nodes have their own systemd, which ends for no SIGTERM
        f"--property=TimeoutStopSec={_STOP_S}",
        "--",
        *argv,
    )


def _python_path() -> dict[str, str]:
    # the package as it runs here, installed or in a checkout; nothing of the caller's environment
    return {"PYTHONPATH": str(Path(constellation.__file__).resolve().parents[1])}


def _network() -> dict[str, str]:
    """What pulling images through the workstation's network needs of the caller's environment."""
    return {name: os.environ[name] for name in _NETWORK if name in os.environ}


def _answers(where: Layout) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(where.socket))
        except OSError:
            return False
    return True
