"""Tests of constellation.base.told: an error survives its way over a program's standard error."""

from __future__ import annotations

import pytest

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    Rejected,
    Unavailable,
    Untrusted,
    UserError,
)
from constellation.base.told import tell, told


@pytest.mark.parametrize(
    "error",
    [
        Conflict("no address is free", hint="end the other program"),
        Unavailable("it does not answer"),
        Untrusted("two\nlines", hint="h"),
        Rejected(("one", "two")),
        UserError("unknown", where="--id"),
    ],
)
def test_an_error_comes_back_with_class_words_and_hint(error: ConstellationError) -> None:
    found = told(f"a line of log\nerror 6: of an earlier run\n{tell(error)}")
    assert found is not None
    assert (found.exit_code, str(found), found.hint) == (error.exit_code, str(error), error.hint)


@pytest.mark.parametrize(
    "said", ["", "Traceback", "error: no code", "error 1: a bug", " error 7: x"]
)
def test_other_words_are_no_error_of_ours(said: str) -> None:
    assert told(f"log\n{said}") is None
