"""How our errors cross a gRPC call: the exit code as the status; message, findings, hint as text.

A peer's error is a claim of that peer: it is shown to people and decides nothing but "try again".
Source: gRPC, doc/statuscodes.md.
"""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
    UserError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["from_status", "raise_ours", "raise_status", "to_status"]

_LONGEST_TEXT = 4000
_OF_LIBRARY = (AssertionError, LookupError, NotImplementedError, ValueError)
"""What grpclib raises for answers that it did not think of: no message, metadata not base64."""
_HINT = "\nhint: "
_FINDING = "\nfinding: "


def to_status(error: ConstellationError) -> GRPCError:
    """Give the gRPC error that tells a peer about `error`."""
    match error:
        case FormatError() | UserError():
            status = Status.INVALID_ARGUMENT
        case Untrusted():
            status = Status.UNAUTHENTICATED
        case Rejected():
            status = Status.PERMISSION_DENIED
        case Unavailable():
            status = Status.UNAVAILABLE
        case Conflict():
            status = Status.FAILED_PRECONDITION
        case _:
            status = Status.INTERNAL
    text = str(error)
    if isinstance(error, Rejected):
        text = "refused" + "".join(_FINDING + _line(f) for f in error.findings)
    text = text[:_LONGEST_TEXT]
    return GRPCError(status, text + (_HINT + _line(error.hint) if error.hint else ""))


def from_status(error: GRPCError, *, who: str) -> ConstellationError:
    """Give our error for what `who` answered."""
    text, _, hint = (error.message or error.status.name).partition(_HINT)
    message = f"{who}: {text[:_LONGEST_TEXT]}"
    match error.status:
        case Status.INVALID_ARGUMENT:
            return FormatError(message, hint=hint)
        case Status.UNAUTHENTICATED:
            return Untrusted(message, hint=hint)
        case Status.PERMISSION_DENIED:
            found = text[:_LONGEST_TEXT].split(_FINDING)[1:] or [text[:_LONGEST_TEXT]]
            return Rejected(tuple(f"{who}: {f}" for f in found), hint=hint)
        case Status.FAILED_PRECONDITION:
            return Conflict(message, hint=hint)
        case _:
            return Unavailable(message, hint=hint)


def _line(text: str) -> str:
    # a line break would begin another finding or the hint
    return text.replace("\n", " ")


@contextlib.contextmanager
def raise_status() -> Iterator[None]:
    """Around a handler: our errors leave it as gRPC errors."""
    try:
        yield
    except ConstellationError as error:
        raise to_status(error) from error


@contextlib.contextmanager
def raise_ours(who: str) -> Iterator[None]:
    """Around calls to `who`: gRPC's errors and lost connections leave it as ours.

    Raises:
        Unavailable: the connection was lost or could not be made.
        FormatError: what came is no answer of gRPC.
        ConstellationError: what the peer said.
    """
    try:
        yield
    except GRPCError as error:
        raise from_status(error, who=who) from error
    except (StreamTerminatedError, ProtocolError, OSError, TimeoutError) as error:
        raise Unavailable(f"{who}: {str(error) or type(error).__name__}") from error
    except _OF_LIBRARY as error:
        if not _in_grpclib(error):
            raise  # a bug of ours
        raise FormatError(f"{who}: not an answer of gRPC ({type(error).__name__})") from error


def _in_grpclib(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("grpclib.") for frame, _ in frames)
