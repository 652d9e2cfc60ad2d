"""Does everything that was published of real machines get its expected verdict?

    PYTHONPATH=src:. python tests/evidence/run.py [FOLDER]

Runs every item of every manifest.json of the folder and every edit of its mutations.json, prints a
line for each that is not as expected, and one line of numbers; exits 1 if there is any such line.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["main"]


class Outcome(StrEnum):
    """What became of an entry, as the last line counts it."""

    ACCEPTED = "accepted as expected"
    REFUSED = "refused as expected"
    ANOTHER = "with another verdict"
    NOT_COVERED = "not covered"


def _outcome(verdict: str, run: Callable[[], None] | None) -> tuple[Outcome, str]:
    from tests.evidence.edits import NotKnownError  # noqa: PLC0415 - not before main names the folder

    if run is None:
        return Outcome.NOT_COVERED, "its kind is not known"
    try:
        run()
    except NotKnownError as unknown:
        return Outcome.NOT_COVERED, str(unknown)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - a crash is no verdict
        lines = str(error).strip().splitlines() or ["not as published"]
        return Outcome.ANOTHER, f"expected {verdict!r}; {type(error).__name__}: {lines[0]}"
    refused = verdict == "reject" or verdict.startswith("strict: reject")
    return (Outcome.REFUSED if refused else Outcome.ACCEPTED), ""


def _entries() -> Iterator[tuple[str, str, str, Callable[[], None] | None]]:
    """Give id, kind, expected verdict and procedure of every entry."""
    from tests.evidence import edits, items, tables  # noqa: PLC0415 - as above
    from tests.vectors import evidence  # noqa: PLC0415

    folder = evidence.folder()
    tables.fill()
    for manifest in sorted(folder.glob("*/manifest.json")):
        platform = manifest.parent.name
        for item in json.loads(manifest.read_bytes())["items"]:
            procedure = items.procedure_of(platform, item["kind"])
            tried = procedure and _bound(items.run, procedure, platform, item["id"], item)
            yield item["id"], item["kind"], item["expected"]["verdict"], tried
    for edit in json.loads((folder / "mutations.json").read_bytes())["mutations"]:
        way = edits.procedure_of(edit["platform"])
        tried = way and _bound(way, edit)
        yield edit["id"], f"edit of {edit['at']}", edit["expected"]["verdict"], tried


def _bound(procedure: Callable[..., None], *given: Any) -> Callable[[], None]:
    return lambda: procedure(*given)


def main(words: list[str]) -> int:
    """Run all; give the exit code."""
    folder = words[0] if words else os.environ.get("CONSTELLATION_EVIDENCE", "")
    # the rooms' tests read entries that they name when they are imported: where it is there, those
    # of the folder beside the project; without it, the given folder must have them
    beside = (Path(__file__).resolve().parents[3] / "shared" / "evidence").is_dir()
    os.environ["CONSTELLATION_EVIDENCE"] = "" if beside else folder
    importlib.import_module("tests.evidence.edits")
    os.environ["CONSTELLATION_EVIDENCE"] = folder
    counts = Counter[Outcome]()
    for name, kind, verdict, run in _entries():
        outcome, why = _outcome(verdict, run)
        counts[outcome] += 1
        if why:
            print(f"{name} | {kind} | {outcome}: {why}")  # noqa: T201
    print("evidence: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome))  # noqa: T201
    return 1 if counts[Outcome.ANOTHER] or counts[Outcome.NOT_COVERED] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
