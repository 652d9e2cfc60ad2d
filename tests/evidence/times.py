"""At which times are certificates valid that were swapped for others?"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from constellation.attestation import chain
from constellation.base.errors import FormatError
from constellation.crypto.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

__all__ = ["times_of"]

_LATER = timedelta(days=1)


def times_of(files: Iterable[bytes]) -> Iterator[datetime]:
    """Give a day after the beginning, and one before the end, of each file that is certificates."""
    for data in files:
        for first, last in _windows(data):
            yield first + _LATER
            yield last - _LATER


def _windows(data: bytes) -> list[tuple[datetime, datetime]]:
    try:
        one = Certificate.parse(data, what="certificate")
    except FormatError:
        pass
    else:
        return [(one.not_before, one.not_after)]
    try:
        several = chain.load_all(data, what="certificates")
    except FormatError:
        return []
    return [(c.not_valid_before_utc, c.not_valid_after_utc) for c in several]
