"""How much may a list of a cloud bring, and may it name one machine twice?

A page may be within all bounds and the list still never end: pages, entries and seconds are counted
over the whole of it. A machine that is named twice is one machine, as far as both say the same; its
state may have changed between two pages.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from constellation.base.clock import monotonic_s
from constellation.base.errors import FormatError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.providers.protocols import Instance

__all__ = ["MOST_ENTRIES", "Listed", "Listing", "once_each"]

MOST_ENTRIES: Final = 20_000
"""A cluster has 5,000 nodes at most; other lists (machine types) are shorter than that."""
_DEADLINE_S: Final = 300.0


class Listed(Protocol):
    """An entry that describes a machine."""

    @property
    def instance(self) -> Instance:
        """Give the machine."""
        ...


T = TypeVar("T", bound=Listed)


class Listing:
    """One list while it is read."""

    def __init__(self, what: str, *, most_pages: int) -> None:
        self._what, self._most_pages = what, most_pages
        self._pages, self._entries = 0, 0
        self._end = monotonic_s() + _DEADLINE_S

    def page(self, entries: int) -> None:
        """Count a page that came.

        Raises:
            FormatError: more pages, or more entries in all, than any cloud of a cluster's has.
            Unavailable: the list takes too long.
        """
        self._pages, self._entries = self._pages + 1, self._entries + entries
        if self._pages > self._most_pages:
            raise FormatError(f"{self._what}: more than {self._most_pages} pages")
        if self._entries > MOST_ENTRIES:
            raise FormatError(f"{self._what}: more than {MOST_ENTRIES} entries")
        if monotonic_s() > self._end:
            raise Unavailable(f"{self._what}: not whole after {_DEADLINE_S:g} s")


def once_each(found: Iterable[T], *, what: str) -> tuple[T, ...]:
    """Give each machine once, sorted by id.

    Raises:
        FormatError: two entries say different things of one id.
    """
    known: dict[str, T] = {}
    for entry in found:
        machine = entry.instance
        before = known.get(machine.instance_id)
        if before is not None and dataclasses.replace(machine, state=before.instance.state) != (
            before.instance
        ):
            raise FormatError(f"{what}: {machine.instance_id} is listed twice, not the same")
        known[machine.instance_id] = entry
    return tuple(known[name] for name in sorted(known))
