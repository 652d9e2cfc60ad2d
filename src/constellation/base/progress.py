"""How long work tells what it is doing: a callback with one value, whoever draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Report", "silent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a step stands.

    `step` names it for people ("Kubernetes v1.36.2"), `detail` what it waits for right now;
    `done` of `total` counts `unit` ("bytes", "packages"; total 0: unknown). `finished` ends it.
    """

    step: str
    detail: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    finished: bool = False


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Take a progress report and do nothing with it."""
    del progress
