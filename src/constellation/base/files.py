"""Files that are either whole or not there: atomic writes, locks, digests while copying."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from constellation.base.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["copy_digest", "lock", "write_atomic"]

_CHUNK_BYTES = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data` so that a crash leaves the old file or the new one, never a part.

    The mode holds from the first byte on (a secret is never readable for a moment).

    Raises:
        Unavailable: the disk is full; the old file stays.
    """
    try:
        _replace(path, data, mode)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Unavailable(f"{path}: no room is left on its disk", hint="make room there") from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file `path` (kept on disk; the kernel frees it when the process ends).

    Raises:
        Conflict: another process holds it; `what` names what it keeps apart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"{what} is in use by another process ({path})",
                hint="wait until it has finished, or end it",
            ) from None
        yield


def copy_digest(source: BinaryIO, target: BinaryIO | None, *, max_bytes: int) -> tuple[bytes, int]:
    """Copy a stream (to nowhere if None) and give SHA-256 (32 bytes) and size of what was copied.

    Stops reading after `max_bytes` + 1 bytes; the caller compares the size.
    """
    digest, size = hashlib.sha256(), 0
    while size <= max_bytes and (chunk := source.read(min(_CHUNK_BYTES, max_bytes + 1 - size))):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.digest(), size
