"""Log lines of programs on nodes: one JSON object a line on standard error, for the journal.

A message is a constant sentence; what varies is in the fields (`extra={"node": …}`). A `Secret`
prints as its size, whichever field it got into. Of one message a few dozen lines a minute are
written, and how many were left out: who can make a program complain cannot fill its disk.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["Budget", "JsonLines", "set_up"]

_STANDARD = frozenset(vars(logging.makeLogRecord({})))
_PER_MINUTE = 60
_MINUTE_S = 60.0
_MOST_MESSAGES = 1024


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, program, message, then its fields."""

    def __init__(self, *, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without its newline."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "program": self._program,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in ("message", "asctime", "taskName"):
                line[name] = value if isinstance(value, str | int | float | bool) else str(value)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Budget(logging.Filter):
    """Lets `per_minute` records of one message through; the first of the next minute has the rest.

    That is the field `left_out`: how many were dropped before it.
    """

    def __init__(self, *, per_minute: int = _PER_MINUTE) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._minutes: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to write the record."""
        key = (record.name, str(record.msg))
        since, count = self._minutes.pop(key, (record.created, 0))
        if record.created - since >= _MINUTE_S:
            if count > self._per_minute:
                record.left_out = count - self._per_minute
            since, count = record.created, 0
        self._minutes[key] = since, count + 1
        if len(self._minutes) > _MOST_MESSAGES:
            self._minutes.popitem(last=False)
        return count < self._per_minute


def set_up(program: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send the log records of this process to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(program=program))
    handler.addFilter(Budget())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # one line a request would bury everything else
    logging.getLogger("httpx2").setLevel(logging.WARNING)
