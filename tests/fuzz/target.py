"""What a fuzz target is: one parser that bytes of others reach, and what it may answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Target", "repeated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser.

    `run` may give a value or raise one of `allowed`, and nothing else, whatever the bytes.
    `seeds` makes inputs with our own fakes; `evidence` are globs below the folder of published
    evidence, which a run may begin with and never keeps. `long` makes an input of about a number
    of bytes that costs the parser most, for the test of linear time.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    allowed: tuple[type[Exception], ...] = (FormatError,)
    evidence: tuple[str, ...] = ()
    long: Callable[[int], bytes] | None = None
    max_bytes: int = 16384

    def try_(self, data: bytes) -> bool:
        """Say whether the parser takes the bytes; what is not allowed is raised."""
        try:
            self.run(data)
        except self.allowed:
            return False
        return True


def repeated(head: bytes, part: bytes, tail: bytes = b"") -> Callable[[int], bytes]:
    """Give a maker of long inputs: `part` as often as fits between `head` and `tail`."""

    def make(size: int) -> bytes:
        count = max(1, (size - len(head) - len(tail)) // len(part))
        return head + part * count + tail

    return make
