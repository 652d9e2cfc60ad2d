"""An error of ours on its way between programs: as an exit code with words, or as lines of stderr.

The last words of a program that another one of ours started are `tell`'s; `told` makes the same
error of them. Nobody outside is believed here: who reads has started the program.
"""

from __future__ import annotations

import re

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)

__all__ = ["from_exit_code", "tell", "told"]

_ERROR = re.compile(r"error ([3-7]): ")
"""With the exit code (design, section 4): under systemd nobody waits for the program itself."""
_HINT = "hint: "


def from_exit_code(code: int, message: str, *, hint: str) -> ConstellationError:
    """Give the error that a program means with an exit code; unknown: a bug's."""
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


def tell(error: ConstellationError) -> str:
    """Give the last lines that a program writes to standard error: message, hint if any."""
    hint = f"{_HINT}{error.hint}\n" if error.hint else ""
    return f"error {error.exit_code}: {error}\n{hint}"


def told(said: str) -> ConstellationError | None:
    """Give the error of a program that said this; None if its last words are no `tell`."""
    lines = said.strip().splitlines()
    begins = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    if not begins:
        return None
    first, *words = lines[begins[-1] :]
    found = _ERROR.match(first)
    assert found is not None  # noqa: S101 - chosen so
    hint = words.pop().removeprefix(_HINT) if words and words[-1].startswith(_HINT) else ""
    message = "\n".join((first[found.end() :], *words))
    return from_exit_code(int(found[1]), message, hint=hint)
