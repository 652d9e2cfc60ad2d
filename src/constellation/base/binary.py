"""Binary formats as tables: fixed layouts (`Layout`) and streams of fields (`Reader`, `Writer`).

A specification prints a structure as a table of offset, size and name. So do we: a frozen
dataclass whose fields are declared with `at(offset, size)`, in the order of that table.
`Reader` is for structures whose later offsets depend on earlier lengths.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from constellation.base.errors import FormatError

__all__ = ["Layout", "Reader", "Writer", "at"]

Order = Literal["little", "big"]


def at(offset: int, size: int, *, integer: bool = False) -> Any:
    """Declare a field: `size` bytes at `offset`; an unsigned number if `integer`."""
    return dataclasses.field(metadata={"at": (offset, size, integer)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A structure of fixed size `SIZE` (bytes) and byte order `ORDER`.

    `ALLOW_RESERVED` names the ranges (first, end) whose bytes no field claims and which need not
    be zero, each with its reason in the subclass.
    """

    SIZE: ClassVar[int]
    ORDER: ClassVar[Order] = "little"
    ALLOW_RESERVED: ClassVar[tuple[tuple[int, int], ...]] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one structure.

        Raises:
            FormatError: wrong size, or a reserved byte is not zero.
        """
        if len(data) != cls.SIZE:
            raise FormatError(f"{cls.__name__}: {len(data)} bytes, want {cls.SIZE}")
        reserved = bytearray(data)
        for first, end in cls.ALLOW_RESERVED:
            reserved[first:end] = bytes(end - first)
        values: dict[str, int | bytes] = {}
        for field in dataclasses.fields(cls):
            offset, size, integer = field.metadata["at"]
            raw = data[offset : offset + size]
            reserved[offset : offset + size] = bytes(size)
            values[field.name] = int.from_bytes(raw, cls.ORDER) if integer else raw
        if any(reserved):
            offset, byte = next((i, b) for i, b in enumerate(reserved) if b)
            raise FormatError(f"{cls.__name__}: reserved byte {offset:#x} is {byte:#04x}")
        return cls(**values)

    def pack(self) -> bytes:
        """Write the structure; the exact inverse of `parse`."""
        out = bytearray(self.SIZE)
        for field in dataclasses.fields(self):
            offset, size, integer = field.metadata["at"]
            value = getattr(self, field.name)
            out[offset : offset + size] = value.to_bytes(size, self.ORDER) if integer else value
        return bytes(out)


class Reader:
    """Reads fields one after another; every shortfall is a `FormatError` with its offset."""

    __slots__ = ("_data", "_order", "offset", "what")

    def __init__(self, data: bytes, *, what: str, order: Order) -> None:
        self._data = data
        self._order: Order = order
        self.what = what
        self.offset = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self.offset

    def take(self, size: int, field: str) -> bytes:
        """Read exactly `size` bytes.

        Raises:
            FormatError: fewer are left.
        """
        start = self.offset
        end = start + size
        if not start <= end <= len(self._data):
            raise FormatError(
                f"{self.what}: {field} at {start:#x} wants {size} bytes, {self.remaining} are left"
            )
        self.offset = end
        return self._data[start:end]

    def number(self, size: int, field: str) -> int:
        """Read an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size, field), self._order)

    def sized(self, length_size: int, field: str, *, maximum: int) -> bytes:
        """Read a length of `length_size` bytes, then that many bytes, `maximum` at most."""
        size = self.number(length_size, f"length of {field}")
        if size > maximum:
            raise FormatError(f"{self.what}: {field} has {size} bytes, at most {maximum} are read")
        return self.take(size, field)

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.take(self.remaining, "rest")

    def end(self) -> None:
        """Check that everything was read.

        Raises:
            FormatError: bytes are left over.
        """
        if self.remaining:
            raise FormatError(f"{self.what}: {self.remaining} bytes left over at {self.offset:#x}")


class Writer:
    """Builds a stream of fields; the twin of `Reader`."""

    __slots__ = ("_order", "_parts")

    def __init__(self, *, order: Order) -> None:
        self._order: Order = order
        self._parts: list[bytes] = []

    def raw(self, data: bytes) -> Self:
        """Append bytes as they are."""
        self._parts.append(data)
        return self

    def number(self, value: int, size: int) -> Self:
        """Append an unsigned number of `size` bytes."""
        return self.raw(value.to_bytes(size, self._order))

    def sized(self, data: bytes, length_size: int) -> Self:
        """Append a length of `length_size` bytes and the bytes."""
        return self.number(len(data), length_size).raw(data)

    def done(self) -> bytes:
        """Give the whole stream."""
        return b"".join(self._parts)
