"""Log lines: one JSON object each, no secret, and no flood of one message."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from constellation.base import logs
from constellation.base.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    stream = io.StringIO()
    logs.set_up("test", stream=stream)
    yield stream
    root.handlers = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_message_and_fields_and_no_secret(written: io.StringIO) -> None:
    logging.getLogger("x").warning("refused", extra={"node": "w-0", "key": Secret(b"0123456789")})
    (line,) = lines(written)
    assert (line["message"], line["node"], line["program"]) == ("refused", "w-0", "test")
    assert line["key"] == "<10 secret bytes>"


def test_who_makes_us_complain_cannot_fill_the_disk(written: io.StringIO) -> None:
    for _ in range(10_000):
        logging.getLogger("x").warning("refused")
    logging.getLogger("x").warning("something else")
    said = [line["message"] for line in lines(written)]
    assert said.count("refused") == 60
    assert said.count("something else") == 1


def test_the_next_minute_says_how_many_were_left_out() -> None:
    budget = logs.Budget(per_minute=2)
    records = [
        logging.makeLogRecord({"msg": "m", "name": "x", "created": float(second)})
        for second in (0, 1, 2, 3, 61, 62)
    ]
    assert [budget.filter(r) for r in records] == [True, True, False, False, True, True]
    assert vars(records[4])["left_out"] == 2
    assert "left_out" not in vars(records[5])
