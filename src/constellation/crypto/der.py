"""What a DER encoding contains: a strict reader of tag, length, value; nothing is interpreted.

It exists because certificates of chips do not follow RFC 5280 everywhere (AMD's VCEK has the serial
number 0), so that the X.509 library may refuse them. One spelling only: BER's other forms
(indefinite or long-winded lengths, padded integers) are `FormatError`.
Source: ITU-T X.690 (02/2021), sections 8, 10 and 11.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from constellation.base.errors import FormatError

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "ENUMERATED",
    "GENERALIZED_TIME",
    "IA5_STRING",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "SET",
    "UTC_TIME",
    "DerReader",
    "context",
    "from_pem_or_der",
    "write",
]

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OID = 0x06
ENUMERATED = 0x0A
IA5_STRING = 0x16
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

_LONG_FORM = 0x80
_HIGH_TAG = 0x1F
_MAX_LENGTH_BYTES = 4
_MAX_OID_BYTES = 32
_SIGN_BIT = 0x80
_UTC_DIGITS = len("YYMMDDHHMMSS")
_GENERALIZED_DIGITS = len("YYYYMMDDHHMMSS")
_PIVOT = 50  # RFC 5280, section 4.1.2.5.1: YY from 50 on is 19YY


def context(number: int, *, constructed: bool = True) -> int:
    """Give the tag of a context-specific element `[number]`, 0 to 30."""
    return 0x80 | (0x20 if constructed else 0) | number


class DerReader:
    """Reads elements one after another; each shortfall is a `FormatError` with offset and field.

    Offsets count from the first byte of the outermost encoding.
    """

    __slots__ = ("_data", "_end", "offset", "what")

    def __init__(self, data: bytes, *, what: str) -> None:
        self._data = data
        self._end = len(data)
        self.offset = 0
        self.what = what

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self.offset

    def at(self, tag: int) -> bool:
        """Say whether the next element has this tag; False at the end."""
        return self.offset < self._end and self._data[self.offset] == tag

    def enter(self, tag: int, field: str) -> Self:
        """Read an element and give a reader of its content."""
        start, end = self._element(tag, field)
        inner = type(self)(self._data, what=self.what)
        inner.offset, inner._end = start, end  # noqa: SLF001 - the same class
        return inner

    def value(self, tag: int, field: str) -> bytes:
        """Read an element's content."""
        start, end = self._element(tag, field)
        return self._data[start:end]

    def raw(self, tag: int, field: str) -> bytes:
        """Read an element with its tag and length: the bytes that a signature covers."""
        first = self.offset
        _, end = self._element(tag, field)
        return self._data[first:end]

    def skip(self, field: str) -> None:
        """Read an element of any tag and forget it."""
        if not self.remaining:
            raise FormatError(f"{self.what}: {field} is missing at {self.offset:#x}")
        self._element(self._data[self.offset], field)

    def integer(self, field: str, *, tag: int = INTEGER) -> int:
        """Read an INTEGER of any size that is not negative.

        Raises:
            FormatError: negative, empty, or padded (X.690, section 8.3.2).
        """
        at, raw = self.offset, self.value(tag, field)
        if not raw or (len(raw) > 1 and raw[0] == 0 and raw[1] < _SIGN_BIT):
            raise FormatError(f"{self.what}: {field} at {at:#x} is not a shortest INTEGER")
        if raw[0] >= _SIGN_BIT:
            raise FormatError(f"{self.what}: {field} at {at:#x} is negative")
        return int.from_bytes(raw, "big")

    def boolean(self, field: str) -> bool:
        """Read a BOOLEAN: 00 or FF (X.690, section 11.1)."""
        at, raw = self.offset, self.value(BOOLEAN, field)
        if raw not in (b"\x00", b"\xff"):
            raise FormatError(f"{self.what}: {field} at {at:#x} is {raw.hex()}, want 00 or ff")
        return raw == b"\xff"

    def oid(self, field: str) -> str:
        """Read an OBJECT IDENTIFIER as dotted numbers (X.690, section 8.19)."""
        at, raw = self.offset, self.value(OID, field)
        dotted = _dotted(raw) if len(raw) <= _MAX_OID_BYTES else None
        if dotted is None:
            raise FormatError(f"{self.what}: {field} at {at:#x} is not a whole, shortest OID")
        return dotted

    def bits(self, field: str) -> bytes:
        """Read a BIT STRING of whole bytes: no unused bits (X.690, section 8.6.2)."""
        at, raw = self.offset, self.value(BIT_STRING, field)
        if not raw or raw[0] != 0:
            raise FormatError(f"{self.what}: {field} at {at:#x} is not of whole bytes")
        return raw[1:]

    def time(self, field: str) -> datetime:
        """Read a UTCTime or GeneralizedTime with seconds and Z (RFC 5280, section 4.1.2.5)."""
        at = self.offset
        short = self.at(UTC_TIME)
        raw = self.value(UTC_TIME if short else GENERALIZED_TIME, field)
        digits = _UTC_DIGITS if short else _GENERALIZED_DIGITS
        text = raw[:-1]
        if len(text) != digits or raw[-1:] != b"Z" or not text.isdigit():
            raise FormatError(f"{self.what}: {field} at {at:#x}: {raw[:32]!r} is not a time")
        year = int(text[: digits - 10])
        if short:
            year += 1900 if year >= _PIVOT else 2000
        parts = [int(text[i : i + 2]) for i in range(digits - 10, digits, 2)]
        try:
            return datetime(year, *parts, tzinfo=UTC)  # type: ignore[misc, arg-type] # five numbers
        except ValueError:
            raise FormatError(f"{self.what}: {field} at {at:#x}: {raw!r} is not a time") from None

    def end(self) -> None:
        """Check that everything was read.

        Raises:
            FormatError: bytes are left over.
        """
        if self.remaining:
            raise FormatError(f"{self.what}: {self.remaining} bytes left over at {self.offset:#x}")

    def _element(self, tag: int, field: str) -> tuple[int, int]:
        """Read tag and length and step over the element; give where its content is."""
        at, data, end = self.offset, self._data, self._end
        if end - at < 2:  # noqa: PLR2004 - tag and length
            raise FormatError(f"{self.what}: {field} is missing at {at:#x}")
        if data[at] != tag or tag & _HIGH_TAG == _HIGH_TAG:
            raise FormatError(
                f"{self.what}: {field} at {at:#x} has tag {data[at]:#04x}, want {tag:#04x}"
            )
        size, start = data[at + 1], at + 2
        if size >= _LONG_FORM:
            more = size - _LONG_FORM
            if not 1 <= more <= _MAX_LENGTH_BYTES or start + more > end:
                raise FormatError(f"{self.what}: {field} at {at:#x} has no definite length")
            size = int.from_bytes(data[start : start + more], "big")
            if size < _LONG_FORM or size < 1 << 8 * (more - 1):
                raise FormatError(f"{self.what}: {field} at {at:#x} has a length in a longer form")
            start += more
        if size > end - start:
            raise FormatError(
                f"{self.what}: {field} at {at:#x} wants {size} bytes, {end - start} are left"
            )
        self.offset = start + size
        return start, self.offset


@lru_cache(maxsize=256)
def _dotted(raw: bytes) -> str | None:
    """Give an OID's dotted numbers; None if it ends within a number or pads one."""
    numbers: list[int] = []
    number, fresh = 0, True
    for byte in raw:
        if fresh and byte == _SIGN_BIT:
            return None
        number, fresh = number << 7 | byte & 0x7F, byte < _SIGN_BIT
        if fresh:
            numbers.append(number)
            number = 0
    if not raw or not fresh:
        return None
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def write(tag: int, *parts: bytes) -> bytes:
    """Write one element whose content is `parts`; the twin of the reader."""
    content = b"".join(parts)
    size = len(content)
    if size < _LONG_FORM:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(length))) + length + content


def from_pem_or_der(data: bytes, *, label: str, what: str) -> bytes:
    """Give the DER of one object that is in PEM (RFC 7468, `label`) or in DER already.

    Raises:
        FormatError: it begins like PEM and is not one object of that label.
    """
    text = data.strip()
    if not text.startswith(b"-----BEGIN"):
        return data
    first, last = (f"-----{word} {label}-----".encode() for word in ("BEGIN", "END"))
    if not text.startswith(first) or not text.endswith(last) or text.count(b"-----BEGIN") != 1:
        raise FormatError(f"{what}: PEM, want exactly one {label}")
    try:
        return base64.b64decode(b"".join(text[len(first) : -len(last)].split()), validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what}: PEM's content is not base64") from None
