"""A drill that did not hold is said to have failed, whatever did not hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.drills.verdict import Figures, findings, log_findings

GOOD = Figures(
    drill="partition",
    nodes="3+2",
    seconds=150,
    back_s=8,
    acknowledged=700,
    lost=(),
    requests={"service": 7000, "api": 2800},
    failed={"service": 30, "api": 12, "writes": 5},
    gaps_s={"api": 3.0, "writes": 6.0},
    events=(),
    findings=(),
)


def test_failed_requests_alone_are_no_failure_of_a_drill_that_breaks_things() -> None:
    assert findings(GOOD, longest_gap_s=10) == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"acknowledged": 0}, "there was no load"),
        ({"lost": ("write-7",)}, "1 acknowledged writes lost: write-7"),
        ({"back_s": None}, "not all nodes and pods came back"),
        ({"gaps_s": {"api": 3.0, "writes": 10.1}}, "writes: 10.1 s without a success"),
        ({"findings": ("the clock",)}, "the clock"),
    ],
)
def test_each_demand_is_judged_by_itself(change: dict[str, Any], says: str) -> None:
    (found,) = findings(dataclasses.replace(GOOD, **change), longest_gap_s=10)
    assert says in found


def record(sequence: int, kind: str = "rejoined", **more: Any) -> dict[str, Any]:
    return {"sequence": sequence, "kind": kind, "name": "worker-0", **more}


BEFORE = [record(1, "founded"), record(2, "settled")]


def test_a_log_that_grew_by_returns_and_refusals_is_intact() -> None:
    assert log_findings(BEFORE, [*BEFORE, record(3), record(4, "refused")]) == ()
    # a signed checkpoint stands for what is below the first record
    assert log_findings(BEFORE, [*BEFORE[1:], record(3)]) == ()


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ([BEFORE[0], record(2, "rejoined")], "record 2 is not the one from before"),
        (BEFORE[:1], "record 2 is not the one from before"),
        ([*BEFORE, record(4)], "sequence numbers are missing"),
        ([*BEFORE, record(3, "removed")], "removed worker-0"),
        ([*BEFORE, record(3, "settled")], "settled worker-0"),
    ],
)
def test_a_log_that_is_another_one_or_tells_of_a_replaced_node_is_not(
    after: list[dict[str, Any]], says: str
) -> None:
    (found,) = log_findings(BEFORE, after)
    assert says in found
