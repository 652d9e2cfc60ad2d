"""Log lines of programs on nodes: one JSON object a line on standard error, for the journal.

A message is a constant sentence; what varies is in the fields (`extra={"node": …}`). A `Secret`
prints as its size, whichever field it got into.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["JsonLines", "set_up"]

_STANDARD = frozenset(vars(logging.makeLogRecord({})))


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


def set_up(program: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(program=program))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # one line a request would bury everything else
    logging.getLogger("httpx2").setLevel(logging.WARNING)
