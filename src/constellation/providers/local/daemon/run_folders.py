"""Folders below /run that others own too: made if missing, removed with the last cloud.

A folder on which another cloud has mounted something in its own namespace would take that mount
along, so removing waits for the last one, and both hold a lock meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.providers.local.daemon.layout import RUN_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["give_back", "held", "make"]

_MADE = "made-folders"


@contextlib.contextmanager
def held(*, run_root: Path = RUN_ROOT) -> Iterator[None]:
    """Keep others from making and removing; `run_root` exists afterwards."""
    run_root.mkdir(parents=True, exist_ok=True)
    handle = os.open(run_root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        run_root.mkdir(parents=True, exist_ok=True)  # its last user may just have removed it
        yield
    finally:
        os.close(handle)


def make(folders: Iterable[Path], *, run_root: Path = RUN_ROOT) -> None:
    """Make folders with their parents; remember those that were missing. Call while `held`."""
    missing = [
        parent
        for folder in folders
        for parent in (*reversed(folder.parents), folder)
        if not parent.exists()
    ]
    with (run_root / _MADE).open("a") as file:
        for folder in dict.fromkeys(missing):
            folder.mkdir()
            file.write(f"{folder}\n")


def give_back(*, run_root: Path = RUN_ROOT) -> None:
    """Remove what was made, once no cloud has a folder in `run_root`. Call while `held`."""
    made = run_root / _MADE
    if not made.exists() or any(path.is_dir() for path in run_root.iterdir()):
        return
    for line in reversed(made.read_text().splitlines()):
        with contextlib.suppress(OSError):  # somebody else uses it by now
            Path(line).rmdir()
    made.unlink()
