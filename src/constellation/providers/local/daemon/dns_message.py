"""What a DNS query says, and how its answer is written (pure).

One question, class IN, no compression in the question; a record of type OPT may follow. Everything
else in a query is refused. Sources: RFC 1035 (4, messages), RFC 2308 (3, negative answers with
SOA), RFC 6891 (6, EDNS), RFC 4343 (names have no case).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from ipaddress import IPv4Address

__all__ = [
    "MAX_QUERY_BYTES",
    "TYPE_A",
    "TYPE_ANY",
    "Code",
    "Query",
    "pack_answer",
    "pack_refusal",
    "parse_query",
]

MAX_QUERY_BYTES = 512
"""A longer query is none of a resolver (RFC 1035, 2.3.4; a name has 255 bytes at most)."""

TYPE_A, TYPE_SOA, TYPE_OPT, TYPE_ANY = 1, 6, 41, 255
CLASS_IN = 1
_HEADER = struct.Struct(">HHHHHH")
_QUESTION = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")
_SOA_NUMBERS = struct.Struct(">IIIII")
_QR, _AA, _RD = 0x8000, 0x0400, 0x0100
_OPCODE = 0x7800
_MAX_LABEL, _MAX_NAME = 63, 255
_UDP_BYTES = 1232
_QUESTION_POINTER = b"\xc0\x0c"
_TTL_S = 5
_MANY = 86400


class Code(IntEnum):
    """RCODE (RFC 1035, 4.1.1; RFC 6891, 9)."""

    NO_ERROR = 0
    FORMAT = 1
    NO_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5
    BAD_VERSION = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question: `name` in lower case without the final dot, `question` its bytes as sent.

    `edns_version` is None where no OPT record came.
    """

    number: int
    opcode: int
    recursion: bool
    name: str
    type: int
    class_: int
    question: bytes
    edns_version: int | None


def parse_query(data: bytes) -> Query:
    """Read a query of at most 512 bytes. Raises FormatError."""
    if not _HEADER.size <= len(data) <= MAX_QUERY_BYTES:
        raise FormatError(f"DNS: a query of {len(data)} bytes")
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR or (questions, answers, authorities) != (1, 0, 0) or additional > 1:
        raise FormatError(f"DNS: no query: flags {flags:#06x}, {questions} questions")
    name, at = _name(data, _HEADER.size)
    if len(data) < at + _QUESTION.size:
        raise FormatError("DNS: the question ends early")
    kind, class_ = _QUESTION.unpack_from(data, at)
    at += _QUESTION.size
    question = data[_HEADER.size : at]
    version = _opt(data[at:]) if additional else None
    if not additional and at != len(data):
        raise FormatError(f"DNS: {len(data) - at} bytes after the question")
    return Query(
        number=number,
        opcode=(flags & _OPCODE) >> 11,
        recursion=bool(flags & _RD),
        name=name,
        type=kind,
        class_=class_,
        question=question,
        edns_version=version,
    )


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels, start = [], at
    while True:
        if at >= len(data):
            raise FormatError("DNS: a name ends early")
        size = data[at]
        at += 1
        if size == 0:
            break
        label = data[at : at + size]
        # the two upper bits mark a pointer, which has nothing to point to in a question
        if size > _MAX_LABEL or len(label) != size or at + size - start >= _MAX_NAME:
            raise FormatError(f"DNS: label of {size} bytes at {at - 1}")
        # what is no ASCII is in no name of ours; no two names become one
        labels.append(label.decode("latin-1").replace(".", "\\."))
        at += size
    return ".".join(labels).lower(), at


def _opt(data: bytes) -> int:
    if len(data) < 1 + _RECORD.size or data[0] != 0:
        raise FormatError("DNS: the additional record is no OPT")
    kind, _, ttl, size = _RECORD.unpack_from(data, 1)
    if kind != TYPE_OPT or len(data) != 1 + _RECORD.size + size:
        raise FormatError(f"DNS: additional record of type {kind}, {size} bytes")
    return int(ttl >> 16 & 0xFF)


def pack_answer(
    query: Query, code: Code, addresses: tuple[IPv4Address, ...] = (), *, zone: str = ""
) -> bytes:
    """Write an answer; with a `zone` it is authoritative, and one without addresses has its SOA."""
    flags = _QR | query.opcode << 11 | (_RD if query.recursion else 0) | (_AA if zone else 0)
    records = b"".join(
        _QUESTION_POINTER + _RECORD.pack(TYPE_A, CLASS_IN, _TTL_S, 4) + address.packed
        for address in addresses
    )
    negative = bool(zone) and not addresses
    soa = _soa(zone) if negative else b""
    opt = b""
    if query.edns_version is not None:
        upper = code >> 4
        opt = b"\0" + _RECORD.pack(TYPE_OPT, _UDP_BYTES, upper << 24, 0)
    header = _HEADER.pack(
        query.number, flags | code & 0xF, 1, len(addresses), int(negative), int(bool(opt))
    )
    return header + query.question + records + soa + opt


def pack_refusal(data: bytes) -> bytes:
    """Write the answer to what is no query we read: FORMERR, or nothing where none can be sent."""
    if len(data) < _HEADER.size:
        return b""
    number, flags, *_ = _HEADER.unpack_from(data)
    # an answer to an answer would go to and fro for ever
    if flags & _QR:
        return b""
    return _HEADER.pack(number, _QR | flags & (_OPCODE | _RD) | Code.FORMAT, 0, 0, 0, 0)


def _soa(zone: str) -> bytes:
    owner = _labels(zone)
    data = _labels(f"ns.{zone}") + _labels(f"nobody.{zone}")
    data += _SOA_NUMBERS.pack(1, _MANY, _MANY, _MANY, _TTL_S)
    return owner + _RECORD.pack(TYPE_SOA, CLASS_IN, _TTL_S, len(data)) + data


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(x)]) + x.encode("ascii") for x in name.split(".")) + b"\0"
