"""Does everything that was published of real machines get its expected verdict?

    PYTHONPATH=src:. python tests/evidence/run.py [FOLDER]

Runs every item of every manifest.json of the folder and every edit of its mutations.json, prints a
line for each that is not as expected, and one line of numbers; exits 1 if there is any such line.
Without FOLDER: the one of CONSTELLATION_EVIDENCE, else the one beside the project.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.evidence import chips, machines, quotes, registers, scenarios
from tests.evidence.chips import Procedure
from tests.evidence.edits import edited
from tests.evidence.folder import Case, Folder, NotKnownError
from tests.evidence.reasons import REFUSALS, fits
from tests.evidence.times import times_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Outcome", "Result", "main", "results"]

_PROCEDURES = (*chips.PROCEDURES, *quotes.PROCEDURES, *machines.PROCEDURES, *registers.PROCEDURES)
_BY_BANK = re.compile(r"accept for the (\w+) bank; reject for (?:the )?(\w+)")


class Outcome(StrEnum):
    """What became of an entry, as the last line counts it."""

    ACCEPTED = "accepted as expected"
    REFUSED = "refused as expected"
    ANOTHER = "with another verdict"
    NOT_COVERED = "not covered"


@dataclass(frozen=True)
class Result:
    """An entry and what became of it; `why` for those that are not as expected."""

    entry: str
    kind: str
    outcome: Outcome
    why: str = ""


def results(folder: Folder) -> Iterator[Result]:
    """Run every item and every edit."""
    for platform, item in folder.items():
        yield _result(item["id"], item["kind"], lambda p=platform, i=item: _item(folder, p, i))
    for edit in folder.edits():
        kind = f"edit of {edit.get('at', '?')}"
        yield _result(edit["id"], kind, lambda e=edit: _edit(folder, e))


def _result(entry: str, kind: str, run: Any) -> Result:
    try:
        return Result(entry, kind, run())
    except NotKnownError as unknown:
        return Result(entry, kind, Outcome.NOT_COVERED, str(unknown))
    except Exception as error:  # noqa: BLE001 - a crash is no verdict, and must not end the run
        lines = str(error).strip().splitlines() or [_where(error)]
        return Result(entry, kind, Outcome.ANOTHER, f"{type(error).__name__}: {lines[0]}")


def _where(error: Exception) -> str:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    assert last is not None
    return f"not as published: {Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"


def procedure_of(platform: str, kind: str) -> Procedure:
    """Give the procedure of a kind."""
    for where, what, procedure in _PROCEDURES:
        if re.fullmatch(where, platform) and re.fullmatch(what, kind):
            return procedure
    raise NotKnownError("its kind is not known")


def _item(folder: Folder, platform: str, item: dict[str, Any]) -> Outcome:
    procedure = procedure_of(platform, item["kind"])
    case = folder.case(platform, item)
    return _judged(case, procedure, item.get("expected") or {}, compare=True)


def _edit(folder: Folder, edit: dict[str, Any]) -> Outcome:
    item = folder.named(edit["platform"], edit["base"])
    procedure = procedure_of(edit["platform"], item["kind"])
    base = folder.case(edit["platform"], item)
    wanted = edit["expected"]
    if base.expected.get("verdict") == "accept":
        procedure.judge(base)  # else an edit would be refused for what is wrong without it
    changed = edited(base, edit)
    if words := changed.expect.get("scenario"):
        procedure = Procedure(lambda _: scenarios.judge(f"{words} {edit['id']}"))
    banks = [bank for bank in ("sha256", "sha384", "sha1") if bank in _known_banks(base)]
    named = [bank for bank in banks if f"({bank})" in wanted.get("error", "")]
    more = {"verdict": wanted["verdict"]} | ({"bank": (named or banks)[0]} if banks else {})
    changed = replace(changed, expect={**changed.expect, **more})
    if by_bank := _BY_BANK.match(wanted["verdict"]):
        return _by_bank(changed, procedure, *by_bank.groups())
    return _judged(changed, procedure, wanted, compare=False)


def _known_banks(case: Case) -> dict[str, Any]:
    return case.expected.get("pcr_banks") or case.values.get("replay") or {}


def _by_bank(case: Case, procedure: Procedure, good: str, bad: str) -> Outcome:
    procedure.judge(replace(case, expect={**case.expect, "bank": good}))
    try:
        procedure.judge(replace(case, expect={**case.expect, "bank": bad}))
    except REFUSALS:
        return Outcome.ACCEPTED
    raise AssertionError(f"accepted for {bad} as well")


def _judged(case: Case, procedure: Procedure, wanted: dict[str, Any], *, compare: bool) -> Outcome:
    """Judge a case; only the library's own refusals count as one."""
    verdict = wanted.get("verdict", "accept")
    reject = verdict.startswith(("reject", "strict: reject"))
    if not reject and not verdict.startswith(("accept", "either", "parse")):
        raise NotKnownError(f"verdict {verdict!r}")
    try:
        found = procedure.judge(case)
    except REFUSALS as error:
        if verdict.startswith("either"):
            return Outcome.REFUSED
        if not reject:
            raise
        reason = wanted.get("error") or verdict.partition("(")[2].partition(")")[0]
        if not fits(reason, error) and not _at_another_time(case, procedure, reason):
            raise AssertionError(f"refused, but not for {reason!r}: {error}") from error
        return Outcome.REFUSED
    if reject:
        raise AssertionError(f"accepted, expected {wanted.get('error') or verdict!r}")
    if compare and procedure.compare is not None:
        procedure.compare(case, found)
    return Outcome.ACCEPTED


def _at_another_time(case: Case, procedure: Procedure, reason: str) -> bool:
    """Judge a swapped certificate at a time of its own, else its validity hides what else is wrong.

    It must be refused at every such time, and for the reason at one of them.
    """
    found = []
    for now in times_of(case.expect.get("swapped", ())):
        try:
            procedure.judge(replace(case, now=now))
        except REFUSALS as error:
            found.append(fits(reason, error))
        else:
            return False
    return any(found)


def main(words: list[str]) -> int:
    """Run all; give the exit code."""
    folder = Folder(Path(words[0])) if words else Folder.usual()
    counts = Counter[Outcome]()
    for result in results(folder):
        counts[result.outcome] += 1
        if result.why:
            print(f"{result.entry} | {result.kind} | {result.outcome}: {result.why}")  # noqa: T201
    print("evidence: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome))  # noqa: T201
    return 1 if counts[Outcome.ANOTHER] or counts[Outcome.NOT_COVERED] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
