"""What do the lines mean that `terraform plan|apply -json` prints? Progress, changes, faults.

A line is a JSON object; kinds that we do not know are skipped, since newer versions add some. No
value of a resource is read, so none gets into progress or messages.
Source: Terraform, "Machine-Readable UI" (format 1.2); OpenTofu prints the same.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constellation.base.progress import Progress

if TYPE_CHECKING:
    from constellation.base.progress import Report

__all__ = ["Change", "Fault", "Reader"]

_MOST = 10_000
_SHOWN = 2000
_ACTS = {"create": "making", "update": "changing", "delete": "removing", "replace": "replacing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One resource that a plan would touch: its address, and "create", "update" and the like."""

    address: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One diagnostic with severity "error"; `address` empty: of no one resource."""

    address: str
    summary: str
    detail: str

    def __str__(self) -> str:
        parts = (self.address, self.summary, " ".join(self.detail.split()))
        return ": ".join(part for part in parts if part)[:_SHOWN]


class Reader:
    """Takes the lines of one run; tells progress, keeps changes and faults."""

    def __init__(self, step: str, report: Report, *, total: int = 0) -> None:
        self._step, self._report, self._total = step, report, total
        self._done = 0
        self.changes: list[Change] = []
        self.faults: list[Fault] = []
        self.unread: list[str] = []

    def take(self, line: str) -> None:
        """Read one line."""
        message = _object(line)
        if message is None:
            if line.strip() and len(self.unread) < _MOST:
                self.unread.append(line[:_SHOWN])
            return
        match message.get("type"):
            case "planned_change":
                self._planned(message)
            case "diagnostic":
                self._diagnostic(message)
            case "apply_start" | "apply_progress" as kind:
                self._tell(message, waiting=kind == "apply_progress")
            case "apply_complete":
                self._done += 1
                self._tell(message, waiting=False)
            case "refresh_start":
                address = _text(message, "hook", "resource", "addr")
                self._report(Progress(step=self._step, detail=f"looking at {address}"))
            case _:
                pass

    def counts(self) -> dict[str, int]:
        """Count changes by action."""
        return dict(Counter(change.action for change in self.changes))

    def _planned(self, message: dict[str, Any]) -> None:
        action = _text(message, "change", "action")
        address = _text(message, "change", "resource", "addr")
        if action not in ("", "noop", "read", "move") and len(self.changes) < _MOST:
            self.changes.append(Change(address=address, action=action))

    def _diagnostic(self, message: dict[str, Any]) -> None:
        if _text(message, "diagnostic", "severity") == "error" and len(self.faults) < _MOST:
            self.faults.append(
                Fault(
                    address=_text(message, "diagnostic", "address"),
                    summary=_text(message, "diagnostic", "summary"),
                    detail=_text(message, "diagnostic", "detail"),
                )
            )

    def _tell(self, message: dict[str, Any], *, waiting: bool) -> None:
        address = _text(message, "hook", "resource", "addr")
        action = _text(message, "hook", "action")
        hook = message.get("hook")
        since = hook.get("elapsed_seconds") if waiting and isinstance(hook, dict) else 0
        shown = f"{_ACTS.get(action, action)} {address}"
        if isinstance(since, int | float) and since:
            shown += f" ({since:.0f} s)"
        self._report(
            Progress(
                step=self._step,
                detail=shown,
                done=min(self._done, self._total) if self._total else self._done,
                total=self._total,
                unit="resources",
            )
        )


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(message: dict[str, Any], *keys: str) -> str:
    found: Any = message
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found[:_SHOWN] if isinstance(found, str) else ""
