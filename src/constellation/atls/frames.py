"""The messages of the attestation handshake inside TLS: type (1 byte), length (4), body; bounded.

    type 1 hello     purpose (length 1 byte, ≤ 32), nonce (32 bytes), attests (1 byte: 0 or 1)
    type 2 evidence  variant (length 1 byte, ≤ 32), the evidence
    type 3 accepted  empty
    type 4 refusal   canonical JSON {kind, message, findings, hint}

Numbers are big-endian. A length above the type's bound is refused when its header arrives, before
any body is kept. Source: design, section 8. Nothing here does I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from constellation.atls.binding import NONCE_BYTES
from constellation.attestation.model import Evidence, Variant
from constellation.base import decode
from constellation.base.binary import Reader, Writer
from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)

__all__ = [
    "FrameBuffer",
    "FrameType",
    "Hello",
    "Refusal",
    "RefusalKind",
    "pack_accepted",
    "pack_evidence",
    "pack_hello",
    "pack_refusal",
    "parse_accepted",
    "parse_evidence",
    "parse_hello",
    "parse_refusal",
]

_HEADER_BYTES = 5
_MAX_NAME_BYTES = 32
# of one refusal, as JSON: 2 texts and all findings together stay below the frame's 16 KiB
_MAX_TEXT_BYTES = 1400
_MAX_FINDINGS_BYTES = 12 * 1024
_PURPOSE = re.compile(rb"([a-z]+(-[a-z]+)*)?")


class FrameType(IntEnum):
    """First byte of a frame."""

    HELLO = 1
    EVIDENCE = 2
    ACCEPTED = 3
    REFUSAL = 4


_MAX_BODY_BYTES: Final = {
    FrameType.HELLO: 512,
    FrameType.EVIDENCE: 512 * 1024,
    FrameType.ACCEPTED: 0,
    FrameType.REFUSAL: 16 * 1024,
}


class RefusalKind(StrEnum):
    """Which error the refusing side had (base.errors)."""

    FORMAT = "format"
    UNTRUSTED = "untrusted"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a side is here for, the nonce that the peer's evidence must cover, whether it attests.

    `purpose` is empty only for a side that has none to state and does not attest.
    """

    purpose: str
    nonce: bytes
    attests: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the other side ended the handshake. Its sender need not be authentic: for people only."""

    kind: RefusalKind
    message: str
    findings: tuple[str, ...]
    hint: str

    @classmethod
    def of(cls, error: ConstellationError) -> Refusal:
        """Describe an error to the peer, cut to what one frame holds."""
        match error:
            case FormatError():
                kind = RefusalKind.FORMAT
            case Untrusted():
                kind = RefusalKind.UNTRUSTED
            case Rejected():
                kind = RefusalKind.REJECTED
            case Conflict():
                kind = RefusalKind.CONFLICT
            case _:
                kind = RefusalKind.UNAVAILABLE
        found = error.findings if isinstance(error, Rejected) else ()
        return cls(
            kind=kind,
            message=_cut(str(error)),
            findings=_cut_findings(found),
            hint=_cut(error.hint),
        )

    def error(self, who: str) -> ConstellationError:
        """Give the error to raise here; `who` names the side that refused."""
        says = f"{who} refused this side"
        match self.kind:
            case RefusalKind.REJECTED if self.findings:
                return Rejected(tuple(f"{says}: {f}" for f in self.findings), hint=self.hint)
            case RefusalKind.REJECTED:
                return Rejected((f"{says}: {self.message}",), hint=self.hint)
            case RefusalKind.FORMAT:
                return FormatError(f"{says}: {self.message}", hint=self.hint)
            case RefusalKind.UNTRUSTED:
                return Untrusted(f"{says}: {self.message}", hint=self.hint)
            case RefusalKind.CONFLICT:
                return Conflict(f"{says}: {self.message}", hint=self.hint)
            case RefusalKind.UNAVAILABLE:
                return Unavailable(f"{says}: {self.message}", hint=self.hint)


class FrameBuffer:
    """Cuts a byte stream into frames; holds one bounded frame at most, and what came after it."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def next(self) -> tuple[FrameType, bytes] | None:
        """Take the next whole frame, None if more bytes are needed.

        Raises:
            FormatError: an unknown type, or a length above the type's bound.
        """
        if len(self._buffer) < _HEADER_BYTES:
            return None
        header = Reader(bytes(self._buffer[:_HEADER_BYTES]), what="aTLS frame", order="big")
        number, size = header.number(1, "type"), header.number(4, "length")
        try:
            kind = FrameType(number)
        except ValueError:
            raise FormatError(f"aTLS frame: type {number}, want 1 to 4") from None
        if size > _MAX_BODY_BYTES[kind]:
            raise FormatError(
                f"aTLS frame: {kind.name.lower()} of {size} bytes, "
                f"at most {_MAX_BODY_BYTES[kind]} are read"
            )
        end = _HEADER_BYTES + size
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_HEADER_BYTES:end])
        del self._buffer[:end]
        return kind, body

    def rest(self) -> bytes:
        """Take everything that belongs to no frame taken so far."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def pack_hello(hello: Hello) -> bytes:
    """Write a hello frame."""
    body = Writer(order="big").sized(hello.purpose.encode(), 1).raw(hello.nonce)
    return _frame(FrameType.HELLO, body.number(int(hello.attests), 1).done())


def parse_hello(body: bytes) -> Hello:
    """Read a hello.

    Raises:
        FormatError: not as the table above says.
    """
    reader = Reader(body, what="aTLS hello", order="big")
    purpose = reader.sized(1, "purpose", maximum=_MAX_NAME_BYTES)
    nonce, attests = reader.take(NONCE_BYTES, "nonce"), reader.number(1, "attests")
    reader.end()
    if not _PURPOSE.fullmatch(purpose):
        raise FormatError("aTLS hello: purpose is not lower-case words joined by dashes")
    if attests > 1:
        raise FormatError(f"aTLS hello: attests is {attests}, want 0 or 1")
    if attests and not purpose:
        raise FormatError("aTLS hello: a side that attests has no purpose")
    return Hello(purpose=purpose.decode(), nonce=nonce, attests=bool(attests))


def pack_evidence(evidence: Evidence) -> bytes:
    """Write an evidence frame.

    Raises:
        FormatError: the evidence is larger than a peer reads.
    """
    body = Writer(order="big").sized(str(evidence.variant).encode(), 1).raw(evidence.data)
    return _frame(FrameType.EVIDENCE, body.done())


def parse_evidence(body: bytes) -> Evidence:
    """Read evidence; what it says is untrusted still.

    Raises:
        FormatError: an unknown variant.
    """
    reader = Reader(body, what="aTLS evidence", order="big")
    name = reader.sized(1, "variant", maximum=_MAX_NAME_BYTES)
    try:
        variant = Variant(name.decode("ascii"))
    except ValueError:
        raise FormatError(f"aTLS evidence: unknown variant {name!r}") from None
    return Evidence(variant=variant, data=reader.rest())


def pack_accepted() -> bytes:
    """Write the frame by which the connecting side ends the handshake."""
    return _frame(FrameType.ACCEPTED, b"")


def parse_accepted(body: bytes) -> None:
    """Read an accepted frame; its bound leaves no room for a body."""
    Reader(body, what="aTLS accepted", order="big").end()


def pack_refusal(refusal: Refusal) -> bytes:
    """Write a refusal frame."""
    return _frame(FrameType.REFUSAL, decode.dump(refusal))


def parse_refusal(body: bytes) -> Refusal:
    """Read a refusal; texts lose their control characters, since they go to terminals and logs.

    Raises:
        FormatError: not the JSON described above.
    """
    refusal = decode.load(
        Refusal, body, what="aTLS refusal", max_bytes=_MAX_BODY_BYTES[FrameType.REFUSAL]
    )
    return Refusal(
        kind=refusal.kind,
        message=_cut(refusal.message),
        findings=_cut_findings(refusal.findings),
        hint=_cut(refusal.hint),
    )


def _frame(kind: FrameType, body: bytes) -> bytes:
    if len(body) > _MAX_BODY_BYTES[kind]:
        raise FormatError(
            f"aTLS frame: {kind.name.lower()} of {len(body)} bytes, a peer reads "
            f"{_MAX_BODY_BYTES[kind]}"
        )
    return Writer(order="big").number(kind, 1).sized(body, 4).done()


def _cut(text: str) -> str:
    # a cut comes before the slow part: the text may be anything
    clean = "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT_BYTES])
    while _json_bytes(clean) > _MAX_TEXT_BYTES:
        clean = clean[: len(clean) * 9 // 10] + "…"
    return clean


def _cut_findings(findings: tuple[str, ...]) -> tuple[str, ...]:
    kept: list[str] = []
    left = _MAX_FINDINGS_BYTES
    for number, finding in enumerate(findings):
        text = _cut(finding)
        left -= _json_bytes(text) + 1
        if left < 0:
            return (*kept, f"and {len(findings) - number} more")
        kept.append(text)
    return tuple(kept)


def _json_bytes(text: str) -> int:
    return len(text.encode()) + text.count('"') + text.count("\\") + 2
