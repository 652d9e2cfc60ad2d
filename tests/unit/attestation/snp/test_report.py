"""Reports: shape, round trip, and nothing but FormatError for anything else."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.snp.report import (
    REPORT_BYTES,
    SIGNED_BYTES,
    Product,
    Report,
    Tcb,
    parse_report,
)
from constellation.base.errors import FormatError
from tests.fakes.amd import AmdWorld
from tests.vectors import evidence

RAW = AmdWorld().chip().report()
PUBLISHED = [
    evidence.read("amd-snp", item, "report")
    for item in evidence.items("amd-snp").values()
    if item["kind"].startswith("report")
]


def changed(**at: tuple[int, bytes]) -> bytes:
    raw = bytearray(RAW)
    for offset, value in at.values():
        raw[offset : offset + len(value)] = value
    return bytes(raw)


def test_no_two_fields_overlap() -> None:
    seen: set[int] = set()
    for field in dataclasses.fields(Report):
        offset, size, _ = field.metadata["at"]
        assert not seen & set(range(offset, offset + size)), field.name
        seen |= set(range(offset, offset + size))
    assert max(seen) < REPORT_BYTES
    assert min(offset for offset in seen if offset >= SIGNED_BYTES) == SIGNED_BYTES


@pytest.mark.parametrize("raw", [RAW, *PUBLISHED])
def test_what_parses_packs_to_the_same_bytes(raw: bytes) -> None:
    assert parse_report(raw).pack() == raw


@given(st.integers(0, REPORT_BYTES - 1), st.integers(0, 255))
@settings(deadline=None)
def test_a_changed_byte_is_a_format_error_or_round_trips(offset: int, value: int) -> None:
    raw = changed(one=(offset, bytes([value])))
    try:
        assert parse_report(raw).pack() == raw
    except FormatError:
        return


@given(st.one_of(st.binary(max_size=64), st.binary(min_size=REPORT_BYTES, max_size=REPORT_BYTES)))
@settings(deadline=None)
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    try:
        parse_report(junk)
    except FormatError:
        return


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0x000, b"\1", "unsupported version 1"),
        (0x000, b"\6", "unsupported version 6"),
        (0x330, b"\1", "reserved byte 0x330"),
        (0x49F, b"\1", "reserved byte 0x49f"),
    ],
)
def test_what_no_signature_covers_must_be_as_the_table_says(
    offset: int, value: bytes, why: str
) -> None:
    with pytest.raises(FormatError, match=why):
        parse_report(changed(one=(offset, value)))


@pytest.mark.parametrize("offset", [0x04C, 0x18B, 0x1EB, 0x1EF, 0x208, 0x29F])
def test_what_the_table_reserves_is_kept_for_the_policy(offset: int) -> None:
    assert not any(parse_report(RAW).reserved)
    assert any(parse_report(changed(one=(offset, b"\1"))).reserved)


def test_fields_of_later_versions_are_reserved_in_earlier_ones() -> None:
    assert any(parse_report(changed(version=(0, b"\2"))).reserved)
    vector = (0x1F8, b"\1")
    assert any(parse_report(changed(version=(0, b"\3"), vector=vector)).reserved)
    assert not any(parse_report(changed(vector=vector)).reserved)


def test_an_unknown_chip_is_a_format_error() -> None:
    report = parse_report(changed(model=(0x188, b"\x19\x50")))
    with pytest.raises(FormatError, match="family 0x19 model 0x50"):
        report.line(Product.MILAN)


@given(st.binary(min_size=8, max_size=8), st.sampled_from(Product))
@settings(deadline=None)
def test_a_tcb_round_trips_in_the_layout_of_its_product(raw: bytes, product: Product) -> None:
    try:
        assert Tcb.parse(raw, product=product).pack(product=product) == raw
    except FormatError:
        assert any(raw[4:7] if product is Product.TURIN else raw[2:6])


def test_turin_has_a_layout_of_its_own() -> None:
    raw = bytes((1, 2, 3, 4, 0, 0, 0, 5))
    expected = Tcb(fmc=1, bootloader=2, tee=3, snp=4, microcode=5)
    assert Tcb.parse(raw, product=Product.TURIN) == expected
    with pytest.raises(FormatError, match="reserved"):
        Tcb.parse(raw, product=Product.GENOA)
