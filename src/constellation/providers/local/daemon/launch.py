"""Starting the daemon so that it outlives its caller: a transient unit under systemd, else a fork.

Under systemd the unit has Delegate=yes (the cloud's cgroups lie in it), KillMode=process (nodes
stay when the daemon ends) and a device policy, which cgroup v2 cannot be given by a file.
Source: systemd-run(1), systemd.resource-control(5), systemd.kill(5).
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
from constellation.providers.local.daemon.spawn import ENVIRONMENT

if TYPE_CHECKING:
    from constellation.providers.local.daemon.layout import Layout

__all__ = ["detached", "unit_command"]

_DEADLINE_S = 30.0
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
_DEVICES = ("/dev/fuse", "/dev/kmsg", "/dev/net/tun", "/dev/loop-control", "block-loop")


def detached(where: Layout, arguments: list[str]) -> None:
    """Start `main --foreground` with these arguments, and wait until its socket answers.

    Raises:
        ConstellationError: what ended it.
        Unavailable: it did not come up in 30 s; the message has the end of its log.
    """
    where.state.mkdir(parents=True, exist_ok=True)
    if _answers(where):
        return
    python = (sys.executable, "-m", "constellation.providers.local.daemon.main")
    argv = (*python, "--foreground", *arguments)
    if Path("/run/systemd/system").is_dir():
        argv = unit_command(where, argv)
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


def unit_command(where: Layout, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Give the words that start `argv` as a transient unit named after the cloud."""
    return (
        "systemd-run",
        f"--unit={where.name}",
        "--collect",
        "--quiet",
        "--property=Type=exec",
        "--property=Delegate=yes",
        "--property=KillMode=process",
        "--property=TasksMax=infinity",
        "--property=LimitNOFILE=1048576",
        "--property=DevicePolicy=closed",
        *(f"--property=DeviceAllow={device} rwm" for device in _DEVICES),
        f"--property=StandardOutput=append:{where.log}",
        f"--property=StandardError=append:{where.log}",
        *(f"--setenv={name}={value}" for name, value in _python_path().items()),
        # by name alone: a proxy's address may hold a password, and arguments are for all to read
        *(f"--setenv={name}" for name in _network()),
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
