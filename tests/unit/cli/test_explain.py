"""Which error a person is told about."""

from __future__ import annotations

import errno

import pytest

from constellation.base.errors import Conflict, Unavailable, UserError
from constellation.cli.explain import explain


def test_ours_stays_and_is_found_in_groups() -> None:
    ours = Conflict("taken")
    assert explain(ours) is ours
    nested = ExceptionGroup("outer", [ValueError(), ExceptionGroup("inner", [ours])])
    assert explain(nested) is ours


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_can_be_tried_again(number: int) -> None:
    error = explain(ExceptionGroup("tasks", [OSError(number, "full", "/cache/file")]))
    assert isinstance(error, Unavailable)
    assert "/cache/file" in str(error)
    assert error.hint == "free some disk; the same command again goes on"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_of_somebody_else_is_bad_input(number: int) -> None:
    error = explain(OSError(number, "Permission denied", "/theirs/file"))
    assert isinstance(error, UserError)
    assert str(error) == "/theirs/file: Permission denied"


@pytest.mark.parametrize("bug", [ValueError("x"), OSError(errno.EBADF, "bad descriptor")])
def test_a_bug_stays_a_bug(bug: Exception) -> None:
    assert explain(bug) is None
    assert explain(ExceptionGroup("tasks", [bug])) is None
