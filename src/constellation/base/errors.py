"""Every failure that we raise on purpose, as one tree, drawn once.

* ConstellationError   a failure that somebody outside can cause, and should read
  + FormatError        bytes are not what their specification says they are        exit 3
  + UserError          what a person wrote cannot be used; has path and hint       exit 3
  + Untrusted          a signature, chain or binding does not hold                 exit 4
  + Rejected           authentic, but refused by policy; carries every finding     exit 5
  + Unavailable        something did not answer; the same again may work           exit 6
  + Conflict           the state of cluster or machine does not allow it           exit 7

A bug is `ValueError` or a failed assertion and ends with exit code 1 (codes: design, section 4).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "Conflict",
    "ConstellationError",
    "FormatError",
    "Rejected",
    "Unavailable",
    "Untrusted",
    "UserError",
]


class ConstellationError(Exception):
    """Root of every error raised on purpose; `hint` is one sentence that says what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class FormatError(ConstellationError):
    """Bytes do not follow the layout that their specification gives."""

    exit_code = 3


class UserError(ConstellationError):
    """Something that a person wrote or asked for cannot be used.

    `where` is `file:line` or the name of the option, empty where neither applies.
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.where = where


class Untrusted(ConstellationError):
    """Authenticity could not be established: the first check that failed."""

    exit_code = 4


class Rejected(ConstellationError):
    """Authentic, but refused by a policy; `findings` has every reason, not only the first."""

    exit_code = 5

    def __init__(self, findings: tuple[str, ...], *, hint: str = "") -> None:
        super().__init__("; ".join(findings), hint=hint)
        self.findings = findings


class Unavailable(ConstellationError):
    """Something did not answer in time or said that it cannot now; may be retried."""

    exit_code = 6


class Conflict(ConstellationError):
    """The present state does not allow what was asked, and asking again does not change that."""

    exit_code = 7
