"""RTMR and MRTD arithmetic, against what the specification says in so many words."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.tdvf import (
    Order,
    SectionType,
    parse_metadata,
    predict_mr_td,
)
from constellation.base.errors import FormatError

FOOTER = bytes.fromhex("de82b596b21ff745baeaa366c55a082d")
TDX = bytes.fromhex("35657ae44a989847865e4685a7bf8ec2")
OTHER = bytes(range(16))
CODE = bytes(i % 251 for i in range(8192))


def firmware(
    sections: list[tuple[int, int, int, int, int, int]],
    *,
    version: int = 1,
    entries: bytes | None = None,
) -> bytes:
    """Build a firmware image: code, metadata, padding, table of GUIDs, reset vector."""
    body = b"".join(struct.pack("<IIQQII", *section) for section in sections)
    metadata = struct.pack("<4sIII", b"TDVF", 16 + len(body), version, len(sections)) + body
    head = CODE + metadata
    tail_bytes = 22 + 20 + 18 + 32
    tdx = struct.pack("<IH", len(metadata) + tail_bytes, 22) + TDX
    table = (tdx + struct.pack("<HH", 0xBEEF, 20) + OTHER) if entries is None else entries
    total = len(table) + 18
    return head + table + struct.pack("<H", total) + FOOTER + bytes(32)


SECTIONS = [
    (0, 8192, 0xFFFFE000, 8192, 0, 1),  # code, measured
    (0, 100, 0x80F000, 4096, 1, 0),  # variables, added but not measured
    (0, 0, 0x809000, 8192, 2, 0),  # hand-off block, zeros
    (0, 0, 0x0, 1 << 21, 4, 2),  # permanent memory, given later
]


def test_the_table_of_parts_is_found_and_read() -> None:
    found = parse_metadata(firmware(SECTIONS))
    assert [s.type for s in found] == [
        SectionType.BFV,
        SectionType.CFV,
        SectionType.TD_HOB,
        SectionType.PERM_MEM,
    ]
    assert found[0].memory_address == 0xFFFFE000


@pytest.mark.parametrize("order", Order)
def test_mr_td_is_what_the_module_hashes_page_by_page(order: Order) -> None:
    def added(address: int) -> bytes:
        return b"MEM.PAGE.ADD" + bytes(4) + address.to_bytes(8, "little") + bytes(104)

    def extended(address: int, content: bytes) -> bytes:
        assert len(content) == 256
        return b"MR.EXTEND" + bytes(7) + address.to_bytes(8, "little") + bytes(104) + content

    def chunks(page: int) -> bytes:
        start = 4096 * page
        return b"".join(
            extended(0xFFFFE000 + start + i, CODE[start + i : start + i + 256])
            for i in range(0, 4096, 256)
        )

    first, second = added(0xFFFFE000), added(0xFFFFF000)
    if order is Order.PAGE_BY_PAGE:
        hashed = first + chunks(0) + second + chunks(1)
    else:
        hashed = first + second + chunks(0) + chunks(1)
    hashed += added(0x80F000) + added(0x809000) + added(0x80A000)
    assert predict_mr_td(firmware(SECTIONS), order=order) == hashlib.sha384(hashed).digest()


def test_one_changed_bit_of_measured_code_changes_mr_td_and_of_other_parts_does_not() -> None:
    image = bytearray(firmware(SECTIONS))
    before = predict_mr_td(bytes(image), order=Order.PAGE_BY_PAGE)
    image[-1] ^= 1
    assert predict_mr_td(bytes(image), order=Order.PAGE_BY_PAGE) == before
    image[4097] ^= 1
    assert predict_mr_td(bytes(image), order=Order.PAGE_BY_PAGE) != before


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "no table of GUIDs"),
        (bytes(4096), "no table of GUIDs"),
        (firmware(SECTIONS, version=2), "want TDVF of 1"),
        (firmware([]), "0 sections"),
        (firmware([(0, 8192, 0x1000, 4096, 0, 1)]), "in memory"),
        (firmware([(1 << 20, 4096, 0x1000, 4096, 0, 1)]), "in memory"),
        (firmware([(0, 0, 0x10, 4096, 0, 1)]), "whole pages"),
        (firmware([(0, 0, 0, 4095, 0, 1)]), "whole pages"),
        (firmware([(0, 0, 0, 1 << 40, 0, 1)]), "in memory"),
        (firmware([(0, 0, 0, 4096, 9, 1)]), "type 9"),
        (firmware([(0, 0, 0, 4096, 0, 3)]), "attributes 0x3"),
        (firmware(SECTIONS, entries=b""), "names no TDX metadata"),
        (firmware(SECTIONS, entries=struct.pack("<H", 5) + OTHER), "entry of 5 bytes"),
        (firmware(SECTIONS, entries=struct.pack("<H", 18) + TDX), "want 22"),
        (firmware(SECTIONS, entries=struct.pack("<IH", 1 << 30, 22) + TDX), "before the file"),
    ],
)
def test_firmware_that_does_not_follow_the_guide_is_refused(image: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        predict_mr_td(image, order=Order.PAGE_BY_PAGE)


@given(st.data())
@settings(deadline=None)
def test_damaged_firmware_is_read_or_a_format_error(data: st.DataObject) -> None:
    image = bytearray(firmware(SECTIONS))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(len(CODE), len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_metadata(bytes(image))
    except FormatError:
        return


def test_registers_start_at_zero_and_remember_the_order() -> None:
    one, two = hashlib.sha384(b"1").digest(), hashlib.sha384(b"2").digest()
    assert rtmr.predict(()) == bytes(48)
    assert rtmr.predict((one,)) == hashlib.sha384(bytes(48) + one).digest()
    assert rtmr.predict((one, two)) != rtmr.predict((two, one))
    with pytest.raises(ValueError, match="32"):
        rtmr.extend(rtmr.ZERO, bytes(32))


def test_each_register_stands_for_the_pcrs_that_the_specification_names() -> None:
    assert [rtmr.register_of_pcr(n) for n in range(16)] == [None, 0, *[1] * 5, 0, *[2] * 8]
    with pytest.raises(ValueError, match="16"):
        rtmr.register_of_pcr(16)
