"""Nodes share one limit of the machine, inotify instances of root: raised while a cloud runs.

Linux's default is 128; one node takes about 25 (systemd, kubelet, containerd, an API server), and a
kubelet that gets none does not start. The value found before the first cloud comes back with the
end of the last. Source: inotify(7), /proc interfaces.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from constellation.providers.local.daemon.layout import RUN_ROOT

__all__ = ["ENOUGH", "give_back", "raise_limit"]

ENOUGH = 8192
_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_BEFORE = "inotify-instances-before"


def raise_limit(*, run_root: Path = RUN_ROOT, limit: Path = _LIMIT) -> None:
    """Raise the limit to `ENOUGH` if it is lower, and remember what it was."""
    found = int(limit.read_text())
    if found >= ENOUGH:
        return
    run_root.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(run_root / _BEFORE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(handle, "w") as file:
            file.write(f"{found}\n")
    limit.write_text(f"{ENOUGH}\n")


def give_back(*, run_root: Path = RUN_ROOT, limit: Path = _LIMIT) -> None:
    """Put the old value back if no cloud has a folder in `run_root` any more."""
    before = run_root / _BEFORE
    if not before.exists() or any(p.is_dir() for p in run_root.iterdir()):
        return
    # somebody who changed it meanwhile keeps his value
    if int(limit.read_text()) == ENOUGH:
        limit.write_text(before.read_text())
    before.unlink()
