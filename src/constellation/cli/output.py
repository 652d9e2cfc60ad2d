"""What a person sees: results on stdout, a live list of steps with times on stderr.

On a terminal the list is redrawn; elsewhere each step is a line when it begins and ends, and one
every 5 seconds while it lasts, so that nothing is silent for longer. A thread draws, because a step
may keep the event loop busy.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TextIO

import click

from constellation.base.clock import monotonic_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from constellation.base.errors import ConstellationError
    from constellation.base.progress import Progress

__all__ = ["Steps", "describe", "printable", "result", "show_error"]

_SILENT_S = 5.0
_REDRAW_S = 0.2
_UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))
_MINUTE_S = 60


@dataclass(slots=True)
class _Line:
    progress: Progress
    began_s: float
    said_s: float
    ended_s: float | None = None
    first_done: int = field(default=0)


def result(value: dict[str, Any], *, output: str, text: Callable[[], str]) -> None:
    """Print a command's result on stdout, as JSON or as text."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    elif words := text():
        click.echo(printable(words))


def printable(text: str) -> str:
    """Replace what a terminal would obey instead of showing; lines stay lines.

    Names, reasons and errors come from nodes and from whoever answers in their place.
    """
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def show_error(error: ConstellationError, *, output: str) -> None:
    """Print an error and its hint on stderr."""
    if output == "json":
        value = {"error": str(error), "exit_code": error.exit_code, "hint": error.hint}
        click.echo(json.dumps(value, sort_keys=True, ensure_ascii=False), err=True)
        return
    click.echo(printable(f"Error: {error}"), err=True)
    if error.hint:
        click.echo(printable(f"Hint: {error.hint}"), err=True)


def describe(progress: Progress, *, first_done: int, seconds: float) -> str:
    """Put detail, amount, rate and time left of a step into words; `seconds` since it began."""
    parts = [progress.detail] if progress.detail else []
    if progress.total or progress.done:
        parts.append(_amount(progress))
        moved = progress.done - first_done
        if progress.unit == "bytes" and moved > 0 and seconds > 1:
            rate = moved / seconds
            parts.append(f"{_bytes(int(rate))}/s")
            if progress.total > progress.done:
                parts.append(f"{_duration((progress.total - progress.done) / rate)} left")
    return ", ".join(parts)


class Steps:
    """Draws progress reports; use as a context manager and pass `report` to the engine."""

    def __init__(self, *, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._asking = threading.Event()
        self._live: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            # a tenth of a second of imports, for terminals only
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream)
            self._live = Live(console=console, get_renderable=self._table, auto_refresh=False)
            self._live.start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        assert self._thread is not None  # noqa: S101 - __enter__ made it
        self._thread.join()
        if self._live is not None:
            self._live.refresh()
            self._live.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question; the list goes on below it."""
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
        self._asking.set()
        try:
            yield
        finally:
            self._asking.clear()
            if self._live is not None:
                self._live.start()

    def report(self, progress: Progress) -> None:
        """Take one report; from any thread."""
        now = monotonic_s()
        with self._lock:
            line = self._lines.get(progress.step)
            if line is not None and line.ended_s is not None:
                return
            if line is None:
                line = _Line(progress, now, now, first_done=progress.done)
                self._lines[progress.step] = line
                if not progress.finished:
                    self._say(line, "", now)
            line.progress = progress
            if progress.finished:
                line.ended_s = now
                self._say(line, f"done in {_duration(now - line.began_s)}", now)

    def _watch(self) -> None:
        while not self._ended.wait(_REDRAW_S):
            if self._asking.is_set():
                continue
            if self._live is not None:
                self._live.refresh()
                continue
            now = monotonic_s()
            with self._lock:
                for line in self._lines.values():
                    if line.ended_s is None and now - line.said_s >= _SILENT_S:
                        self._say(line, f"{self._words(line, now) or 'working'}", now)

    def _say(self, line: _Line, words: str, now: float) -> None:
        line.said_s = now
        if self._live is None:
            tail = f": {words}" if words else " …"
            self._stream.write(printable(f"{line.progress.step}{tail}") + "\n")
            self._stream.flush()

    def _words(self, line: _Line, now: float) -> str:
        seconds = now - line.began_s
        said = describe(line.progress, first_done=line.first_done, seconds=seconds)
        return f"{said} ({_duration(seconds)})" if said else f"({_duration(seconds)})"

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table, now = Table.grid(padding=(0, 1)), monotonic_s()
        with self._lock:
            for line in self._lines.values():
                seconds = (line.ended_s or now) - line.began_s
                mark = Text("✓", "green") if line.ended_s is not None else Text("…", "yellow")
                first, span = line.first_done, now - line.began_s
                words = (
                    "" if line.ended_s else describe(line.progress, first_done=first, seconds=span)
                )
                step, told = Text(printable(line.progress.step)), Text(printable(words))
                table.add_row(mark, step, Text(_duration(seconds), "dim"), told)
        return table


def _amount(progress: Progress) -> str:
    if progress.unit == "bytes":
        done = _bytes(progress.done)
        return f"{done} of {_bytes(progress.total)}" if progress.total else done
    done = str(progress.done)
    unit = f" {progress.unit}" if progress.unit else ""
    return f"{done} of {progress.total}{unit}" if progress.total else f"{done}{unit}"


def _bytes(size: int) -> str:
    for factor, unit in _UNITS:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    return f"{int(seconds // _MINUTE_S)} min {int(seconds % _MINUTE_S)} s"
