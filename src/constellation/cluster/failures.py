"""Which of our errors an exit code of a peer stands for."""

from __future__ import annotations

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)

__all__ = ["from_exit_code"]


def from_exit_code(code: int, message: str, *, hint: str) -> ConstellationError:
    """Give the error that a node means with an exit code (design, section 4); unknown: a bug's."""
    match code:
        case 3:
            return FormatError(message, hint=hint)
        case 4:
            return Untrusted(message, hint=hint)
        case 5:
            return Rejected((message,), hint=hint)
        case 6:
            return Unavailable(message, hint=hint)
        case 7:
            return Conflict(message, hint=hint)
        case _:
            return ConstellationError(message, hint=hint)
