"""Tests of constellation.atls.frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.atls.frames import (
    FrameBuffer,
    FrameType,
    Hello,
    Refusal,
    RefusalKind,
    pack_accepted,
    pack_evidence,
    pack_hello,
    pack_refusal,
    parse_evidence,
    parse_hello,
    parse_refusal,
)
from constellation.attestation.model import Evidence, Variant
from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)

HELLO = Hello(purpose="join-client", nonce=bytes(range(32)), attests=True)
EVIDENCE = Evidence(variant=Variant.LOCAL_VTPM, data=b"evidence")


def body_of(frame: bytes) -> bytes:
    return frame[5:]


def test_a_hello_equals_its_known_answer() -> None:
    nonce = "".join(f"{i:02x}" for i in range(32))
    assert pack_hello(HELLO).hex() == "010000002d0b6a6f696e2d636c69656e74" + nonce + "01"


def test_what_is_packed_parses_to_the_same() -> None:
    assert parse_hello(body_of(pack_hello(HELLO))) == HELLO
    assert parse_evidence(body_of(pack_evidence(EVIDENCE))) == EVIDENCE


@given(st.lists(st.integers(1, 7), max_size=40))
def test_frames_come_out_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream, buffer, frames = pack_hello(HELLO) + pack_evidence(EVIDENCE) + pack_accepted(), None, []
    buffer = FrameBuffer()
    for cut in [*cuts, len(stream)]:
        buffer.feed(stream[:cut])
        stream = stream[cut:]
        while frame := buffer.next():
            frames.append(frame[0])
    assert frames == [FrameType.HELLO, FrameType.EVIDENCE, FrameType.ACCEPTED]
    assert buffer.rest() == b""


@pytest.mark.parametrize(
    ("kind", "size"), [(1, 513), (2, 512 * 1024 + 1), (3, 1), (4, 16 * 1024 + 1), (2, 2**32 - 1)]
)
def test_a_frame_above_its_bound_is_refused_by_its_header_alone(kind: int, size: int) -> None:
    buffer = FrameBuffer()
    buffer.feed(bytes([kind]) + size.to_bytes(4, "big"))
    with pytest.raises(FormatError, match=f"of {size} bytes"):
        buffer.next()


@pytest.mark.parametrize("kind", [0, 5, 22, 255])
def test_an_unknown_type_is_refused(kind: int) -> None:
    buffer = FrameBuffer()
    buffer.feed(bytes([kind, 0, 0, 0, 0]))
    with pytest.raises(FormatError, match=f"type {kind}"):
        buffer.next()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" + bytes(31) + b"\0",
        b"\0" + bytes(33) + b"\0",
        b"\x01A" + bytes(32) + b"\x01",
        b"\x04init" + bytes(32) + b"\x02",
        b"\x04init" + bytes(32) + b"\x01\x00",
        b"\x21" + b"a" * 33 + bytes(32) + b"\x01",
        b"\x00" + bytes(32) + b"\x01",
    ],
)
def test_a_malformed_hello_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError, match="hello"):
        parse_hello(body)


def test_evidence_of_an_unknown_variant_is_refused() -> None:
    with pytest.raises(FormatError, match="unknown variant"):
        parse_evidence(b"\x04none" + b"data")


@given(st.binary(max_size=200))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for parse in (parse_hello, parse_evidence, parse_refusal):
        try:
            parse(junk)
        except FormatError:
            continue


@pytest.mark.parametrize(
    "error",
    [
        FormatError("bad", hint="do this"),
        Untrusted("forged"),
        Rejected(("pcr4: found 00, expected 01", "pcr9: claim absent"), hint="rebuild"),
        Unavailable("slow"),
        Conflict("not now"),
    ],
)
def test_a_refusal_carries_kind_findings_and_hint(error: ConstellationError) -> None:
    told = parse_refusal(body_of(pack_refusal(Refusal.of(error)))).error("the server")
    assert type(told) is type(error)
    assert told.hint == error.hint
    for reason in getattr(error, "findings", (str(error),)):
        assert reason in str(told)


@pytest.mark.parametrize("letter", ["a", "é", '"', "\\", "\N{GRINNING FACE}"])
def test_a_refusal_too_long_for_its_frame_is_cut(letter: str) -> None:
    error = Rejected(tuple(letter * 2000 for _ in range(500)), hint=letter * 100_000)
    frame = pack_refusal(Refusal.of(error))
    assert len(frame) <= 5 + 16 * 1024
    assert parse_refusal(body_of(frame)).findings[-1].startswith("and 49")


def test_a_refusal_cannot_steer_a_terminal() -> None:
    refusal = Refusal(
        kind=RefusalKind.UNTRUSTED,
        message="\x1b[2Jall is well\r\n",
        findings=("\x07",),
        hint="\x00",
    )
    told = parse_refusal(body_of(pack_refusal(refusal)))
    assert told.message == " [2Jall is well  "
    assert told.findings == (" ",)
