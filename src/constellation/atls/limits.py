"""Which new connection may begin a handshake: bounded in number, per address, and per minute.

Where no place is left, the address that holds most of them gives up its oldest: few addresses
cannot keep others out, whatever they do with their connections. Pure: the time is an argument. What
is refused here costs one `accept` and no cryptography.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["USUAL", "Gate", "Limits", "Place", "Rate"]

_MOST_ADDRESSES = 4096
_SHARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one server: seconds of one handshake, and connections at the same time.

    `handshakes` counts peers that are not yet appraised, `handshakes_per_address` those of one
    address, `connections` all; `per_minute` is how often one address may connect.
    """

    handshake_s: float
    handshakes: int
    handshakes_per_address: int
    connections: int
    per_minute: int

    @property
    def connections_per_address(self) -> int:
        """One address may hold a quarter of all connections, known or not."""
        return max(self.handshakes_per_address, self.connections // _SHARE)


USUAL = Limits(
    handshake_s=15.0, handshakes=64, handshakes_per_address=16, connections=512, per_minute=240
)
"""For servers on nodes: a whole cluster may arrive at once, from behind one load balancer."""


@dataclass(eq=False, slots=True, kw_only=True)
class Place:
    """One connection that was let in; `give_up` ends it, None where it cannot be ended."""

    address: str
    since_s: float
    give_up: Callable[[], None] | None
    settled: bool = False
    left: bool = False


class Rate:
    """How often something may happen: `burst` times at once, `per_second` in the long run."""

    __slots__ = ("_burst", "_per_second", "_since_s", "_tokens")

    def __init__(self, *, burst: int, per_second: float, now_s: float) -> None:
        self._burst, self._per_second = float(burst), per_second
        self._tokens, self._since_s = float(burst), now_s

    def take(self, count: int, *, now_s: float) -> bool:
        """Count `count` events; say whether they were within the rate."""
        grown = self._tokens + (now_s - self._since_s) * self._per_second
        self._tokens, self._since_s = min(self._burst, grown), now_s
        allowed = self._tokens >= count
        if allowed:
            self._tokens -= count
        return allowed


class Gate:
    """Counts connections against `Limits`; addresses are remembered least recently used first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handshakes: dict[str, dict[Place, None]] = {}
        self._handshake_count = 0
        self._connections: Counter[str] = Counter()
        self._recent: OrderedDict[str, Rate] = OrderedDict()

    def enter(
        self, address: str, *, now_s: float, give_up: Callable[[], None] | None = None
    ) -> Place | None:
        """Admit a new connection to its handshake, or not (None). `now_s` never goes back.

        `give_up` is called when, later, a connection of another address needs the place more; the
        place counts as left then. Without it the place is kept until its owner leaves.
        """
        limits = self._limits
        own = len(self._handshakes.get(address, ()))
        if (
            self._connections[address] >= limits.connections_per_address
            or own >= limits.handshakes_per_address
            or not self._take_token(address, now_s)
        ):
            return None
        full = (
            self._handshake_count >= limits.handshakes
            or self._connections.total() >= limits.connections
        )
        if full and not self._make_room(own):
            return None
        place = Place(address=address, since_s=now_s, give_up=give_up)
        self._handshakes.setdefault(address, {})[place] = None
        self._handshake_count += 1
        self._connections[address] += 1
        return place

    def settled(self, place: Place) -> None:
        """Count a handshake as finished, whatever came out; a second time changes nothing."""
        if place.settled:
            return
        place.settled = True
        self._handshake_count -= 1
        waiting = self._handshakes[place.address]
        del waiting[place]
        if not waiting:
            del self._handshakes[place.address]

    def left(self, place: Place) -> None:
        """Count a connection as ended; a second time changes nothing."""
        self.settled(place)
        if place.left:
            return
        place.left = True
        # it holds the connection, which holds its place: the collector would have to part them
        place.give_up = None
        self._connections[place.address] -= 1
        if not self._connections[place.address]:
            del self._connections[place.address]

    def _make_room(self, own: int) -> bool:
        """Take the oldest place of the address that has most, if that is more than `own`."""
        candidates = (
            (-len(waiting), place.since_s, place)
            for waiting in self._handshakes.values()
            if len(waiting) > own
            for place in (next((p for p in waiting if p.give_up is not None), None),)
            if place is not None
        )
        found = min(candidates, key=lambda c: c[:2], default=None)
        if found is None:
            return False
        place = found[2]
        give_up = place.give_up
        self.left(place)
        if give_up is not None:
            give_up()
        return True

    def _take_token(self, address: str, now_s: float) -> bool:
        limits = self._limits
        rate = self._recent.pop(address, None) or Rate(
            burst=limits.per_minute, per_second=limits.per_minute / 60, now_s=now_s
        )
        self._recent[address] = rate
        if len(self._recent) > _MOST_ADDRESSES:
            self._recent.popitem(last=False)
        return rate.take(1, now_s=now_s)
