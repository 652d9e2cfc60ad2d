"""How many refused attempts get a record of their own: a bound that an attacker cannot stretch.

At most 10 a minute for each address and 60 in all; the rest is counted, and one record a minute
says how many there were (design, section 10, "Join log").
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RefusalBudget", "admit_refusal", "close_minute"]

_A_MINUTE_EACH = 10
_A_MINUTE_IN_ALL = 60
_MINUTE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalBudget:
    """What was recorded and what was only counted since `since_s` (seconds, any steady clock)."""

    since_s: float
    recorded: dict[str, int]
    uncounted: int


def admit_refusal(budget: RefusalBudget, address: str) -> tuple[bool, RefusalBudget]:
    """Say whether a refusal of `address` is recorded, and give the budget after it."""
    already = budget.recorded.get(address, 0)
    if already >= _A_MINUTE_EACH or sum(budget.recorded.values()) >= _A_MINUTE_IN_ALL:
        return False, RefusalBudget(
            since_s=budget.since_s, recorded=budget.recorded, uncounted=budget.uncounted + 1
        )
    return True, RefusalBudget(
        since_s=budget.since_s,
        recorded={**budget.recorded, address: already + 1},
        uncounted=budget.uncounted,
    )


def close_minute(budget: RefusalBudget, *, now_s: float) -> tuple[int, RefusalBudget]:
    """Start a new minute if this one is over; give how many refusals went unrecorded in it."""
    if now_s - budget.since_s < _MINUTE_S:
        return 0, budget
    return budget.uncounted, RefusalBudget(since_s=now_s, recorded={}, uncounted=0)
