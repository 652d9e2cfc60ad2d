"""What a drill demands of a cluster; pure.

Of each: no acknowledged write lost, all nodes back, their own and no others, the join log as it was
with records added, and an API that answers again within the drill's own time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Figures", "findings", "log_findings"]

_NEVER = frozenset({"reserved", "settled", "lapsed", "removed", "forgotten"})
"""Records that no drill may cause: they say that a node was replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a drill measured.

    `back_s`: seconds from the last fault's end until all nodes and pods were well, None: they were
    not. `gaps_s`: longest time without a success, by probe. `failed`: unsuccessful requests.
    """

    drill: str
    nodes: str
    seconds: int
    back_s: int | None
    acknowledged: int
    lost: tuple[str, ...]
    requests: Mapping[str, int]
    failed: Mapping[str, int]
    gaps_s: Mapping[str, float]
    events: tuple[str, ...]
    findings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Give it as it is kept."""
        return asdict(self)


def findings(figures: Figures, *, longest_gap_s: float) -> tuple[str, ...]:
    """Say what was not as demanded; empty: it passed."""
    found = list(figures.findings)
    if figures.acknowledged == 0:
        found.append("no write was acknowledged: there was no load")
    if figures.lost:
        found.append(f"{len(figures.lost)} acknowledged writes lost: {', '.join(figures.lost[:5])}")
    if figures.back_s is None:
        found.append("not all nodes and pods came back")
    found += [
        f"{probe}: {gap_s:.1f} s without a success, expected at most {longest_gap_s:g} s"
        for probe, gap_s in figures.gaps_s.items()
        if gap_s > longest_gap_s
    ]
    return tuple(found)


def log_findings(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Say where the log afterwards is not the log before with records of the same nodes added."""
    kept = {r["sequence"]: r for r in after}
    first = min(kept, default=0)
    found = [
        f"join log: record {record['sequence']} is not the one from before"
        for record in before
        # below the first one a signed checkpoint stands for the records
        if record["sequence"] >= first and kept.get(record["sequence"]) != record
    ]
    last = max((r["sequence"] for r in before), default=-1)
    added = [r for r in after if r["sequence"] > last]
    if [r["sequence"] for r in added] != list(range(last + 1, last + 1 + len(added))):
        found.append("join log: sequence numbers are missing")
    found += [f"join log: {r['kind']} {r['name']}" for r in added if r["kind"] in _NEVER]
    return tuple(found)
