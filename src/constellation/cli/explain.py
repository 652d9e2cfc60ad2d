"""Which error a person is told about, when what came up was a group of errors or the disk's.

An `OSError` that only the machine's owner can do something about (disk full, no right to write)
becomes one of ours, with the file and a hint; any other is a bug and stays one.
"""

from __future__ import annotations

import errno

from constellation.base.errors import ConstellationError, Unavailable, UserError

__all__ = ["explain"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(error: BaseException) -> ConstellationError | None:
    """Give the first error in `error` that a person can act on; None: this is a bug."""
    match error:
        case ConstellationError():
            return error
        case OSError(errno=number) if number in _FULL:
            return Unavailable(
                f"no space is left on the disk of {error.filename or 'the cache or the workspace'}",
                hint="free some disk; the same command again goes on",
            )
        case OSError(errno=number) if number in _NOT_OURS:
            return UserError(
                f"{error.strerror}",
                where=str(error.filename or ""),
                hint="the folder must be yours: another one with -C, or chown it back",
            )
        case BaseExceptionGroup():
            found = map(explain, error.exceptions)
            return next((one for one in found if one is not None), None)
        case _:
            return None
