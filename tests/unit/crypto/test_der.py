"""The DER reader: one spelling, offsets in messages, certificates that a library may refuse."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.crypto import der
from constellation.crypto.certificate import Certificate, RevocationList
from constellation.crypto.der import DerReader
from tests.fakes.amd import AmdWorld, integer, oid

WORLD = AmdWorld()
CERTIFICATE = WORLD.chip().vek


def read(text: str) -> DerReader:
    return DerReader(bytes.fromhex(text), what="thing")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is missing at 0x0"),
        ("02", "is missing at 0x0"),
        ("0301ff", "has tag 0x03, want 0x02"),
        ("0202ff", "wants 2 bytes, 1 are left"),
        ("0280", "no definite length"),
        ("02850000000001", "no definite length"),
        ("028101ff", "length in a longer form"),
        ("0282008000", "length in a longer form"),
        ("0200", "shortest INTEGER"),
        ("02020001", "shortest INTEGER"),
        ("0201ff", "is negative"),
    ],
)
def test_an_integer_has_one_spelling(text: str, why: str) -> None:
    with pytest.raises(FormatError, match=f"thing: number.*{why}"):
        read(text).integer("number")


@given(st.integers(0, 1 << 200))
@settings(deadline=None)
def test_integers_round_trip(number: int) -> None:
    reader = DerReader(integer(number), what="thing")
    assert reader.integer("number") == number
    reader.end()


@given(st.lists(st.integers(0, 1 << 30), min_size=0, max_size=4), st.integers(0, 39))
@settings(deadline=None)
def test_oids_round_trip(rest: list[int], second: int) -> None:
    dotted = ".".join(map(str, (1, second, *rest)))
    assert DerReader(oid(dotted), what="thing").oid("name") == dotted


@pytest.mark.parametrize("text", ["0600", "060180", "06022a86", "0603808001", "06032a8001"])
def test_an_oid_is_whole_and_not_padded(text: str) -> None:
    with pytest.raises(FormatError, match="OID"):
        read(text).oid("name")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (0x17, b"500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (0x17, b"491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (0x18, b"20500101000000Z", datetime(2050, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_rfc_5280_says(kind: int, text: bytes, expected: datetime) -> None:
    assert DerReader(der.write(kind, text), what="thing").time("when") == expected


@pytest.mark.parametrize(
    "text", [b"", b"Z", b"4912312359Z", b"491331235959Z", b"491231235959+", b"49123123595\xb2Z"]
)
def test_other_times_are_format_errors(text: bytes) -> None:
    for kind in (0x17, 0x18):
        with pytest.raises(FormatError, match="is not a time"):
            DerReader(der.write(kind, text), what="thing").time("when")


def test_a_certificate_whose_serial_is_zero_is_read() -> None:
    assert Certificate.parse(CERTIFICATE, what="VCEK").serial == 0


def test_a_boolean_is_00_or_ff_and_a_bit_string_of_whole_bytes() -> None:
    with pytest.raises(FormatError, match="want 00 or ff"):
        read("010101").boolean("flag")
    with pytest.raises(FormatError, match="whole bytes"):
        read("03020100").bits("signature")


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for parse in (Certificate.parse, RevocationList.parse):
        for data in (junk, der.write(der.SEQUENCE, der.write(der.SEQUENCE, junk))):
            with pytest.raises(FormatError):
                parse(data, what="thing")


@given(st.data())
@settings(deadline=None)
def test_an_edited_certificate_is_a_format_error_or_a_certificate(data: st.DataObject) -> None:
    for parse, good in ((Certificate.parse, CERTIFICATE), (RevocationList.parse, WORLD.crl())):
        raw = bytearray(good)
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = parse(bytes(raw), what="thing")
            if isinstance(found, Certificate):
                found.common_name()
        except FormatError:
            continue
