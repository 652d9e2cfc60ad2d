"""Bytes that must not be printed, compared in variable time, or pickled.

What this does not do: CPython cannot wipe memory. Confidentiality of memory is the confidential
VM's part; core dumps of our programs are off (units set LimitCORE=0).
"""

from __future__ import annotations

import hmac
import secrets
from typing import Never, Self

__all__ = ["Secret"]


class Secret:
    """Secret bytes; only `reveal` gives them, so that every place that does can be searched for."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    @classmethod
    def random(cls, size_bytes: int) -> Self:
        """Make `size_bytes` of the operating system's randomness."""
        return cls(secrets.token_bytes(size_bytes))

    def reveal(self) -> bytes:
        """Give the bytes themselves. Never to a log, argv, environment, URL or exception."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        raise TypeError("a Secret is not hashable")

    def __repr__(self) -> str:
        return f"<{len(self._value)} secret bytes>"

    __str__ = __repr__

    def __reduce__(self) -> Never:
        raise TypeError("a Secret cannot be pickled")
