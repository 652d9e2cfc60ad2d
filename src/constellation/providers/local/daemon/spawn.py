"""Starting the programs that outlive the daemon: in their cgroup, with a log, known for ever.

A few lines of shell stand between: they move into the cgroup, so that the program and all its
children are there from the first instruction on, and write down how the program ended, which
a daemon that was restarted meanwhile could not learn from the kernel. The shell that does the
latter is in a group of its own: on cgroup v2 a group that has groups below it, as a node's has, may
hold no process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.providers.local.daemon import kernel
from constellation.providers.local.daemon.records import Process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from constellation.providers.local.daemon.cgroups import Cgroups

__all__ = ["ENVIRONMENT", "end", "start"]

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""What our programs get of an environment: nothing of the user's."""

_ENTER = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 125; shift; done; shift; '
_EXEC = 'exec "$@"'
# the shell stays, and with it the descriptors that it was given
_KEEP = f'({_ENTER}{_EXEC}); echo $? >"$0.new"; mv "$0.new" "$0"'

_reaped: list[subprocess.Popen[bytes]] = []


def start(
    argv: tuple[str, ...],
    *,
    cgroups: Cgroups,
    part: str,
    log: Path,
    exit_file: Path | None = None,
    keeper_part: str = "",
    env: Mapping[str, str] = ENVIRONMENT,
    keep: tuple[int, ...] = (),
) -> Process:
    """Start a program in its own session; output is appended to `log`.

    With `exit_file`, the process given back is the keeper, in the group `keeper_part`, that writes
    the exit code there as decimal text, and holds the descriptors `keep` open until then.

    Raises:
        Unavailable: it could not be started.
    """
    if exit_file is not None:
        exit_file.unlink(missing_ok=True)
    parts = (part,) if exit_file is None else (keeper_part, part)
    words = (
        "/bin/sh",
        "-c",
        _ENTER + (_EXEC if exit_file is None else _KEEP),
        str(exit_file or "sh"),
        *(word for name in parts for word in (*map(str, cgroups.folders(name)), "--")),
        *argv,
    )
    for old in tuple(_reaped):
        if old.poll() is not None:
            _reaped.remove(old)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd="/",
                pass_fds=keep,
                start_new_session=True,
            )
    except OSError as error:
        raise Unavailable(f"{argv[0]} did not start: {error}") from error
    _reaped.append(process)
    return Process(pid=process.pid, started=kernel.start_time(process.pid))


def end(process: Process, *, signal_number: int = signal.SIGTERM) -> None:
    """Send a signal to exactly this process; one that has ended is no error."""
    if kernel.alive(process.pid, process.started):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal_number)
    for old in tuple(_reaped):
        if old.poll() is not None:
            _reaped.remove(old)
