"""Which new connection may begin a handshake: bounded in number, per address, and per minute.

Pure: the time is an argument. What is refused here costs one `accept` and no cryptography.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

__all__ = ["USUAL", "Gate", "Limits"]

_MOST_ADDRESSES = 4096


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


USUAL = Limits(
    handshake_s=15.0, handshakes=64, handshakes_per_address=16, connections=512, per_minute=240
)
"""For servers on nodes: a whole cluster may arrive at once, from behind one load balancer."""


class Gate:
    """Counts connections against `Limits`; addresses are remembered least recently used first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handshakes: Counter[str] = Counter()
        self._connections = 0
        self._recent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def enter(self, address: str, *, now_s: float) -> bool:
        """Admit a new connection to its handshake, or not. `now_s` never goes back."""
        limits = self._limits
        if (
            self._connections >= limits.connections
            or self._handshakes.total() >= limits.handshakes
            or self._handshakes[address] >= limits.handshakes_per_address
            or not self._take_token(address, now_s)
        ):
            return False
        self._handshakes[address] += 1
        self._connections += 1
        return True

    def settled(self, address: str) -> None:
        """Count a handshake as finished, whatever came out."""
        self._handshakes[address] -= 1
        if self._handshakes[address] <= 0:
            del self._handshakes[address]

    def left(self) -> None:
        """Count a connection as ended."""
        self._connections -= 1

    def _take_token(self, address: str, now_s: float) -> bool:
        full = float(self._limits.per_minute)
        tokens, since = self._recent.pop(address, (full, now_s))
        tokens = min(full, tokens + (now_s - since) * full / 60)
        allowed = tokens >= 1
        self._recent[address] = (tokens - 1 if allowed else tokens, now_s)
        if len(self._recent) > _MOST_ADDRESSES:
            self._recent.popitem(last=False)
        return allowed
