"""EFI programs: what firmware measures of them, and how sections come into one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.image import pe
from tests.fakes.efi_program import efi_program

_CHECKSUM, _CERTIFICATES_ENTRY = 88 + 64, 88 + 112 + 32


def test_the_digest_leaves_out_checksum_and_certificates() -> None:
    data = efi_program(certificates=b"c" * 24)
    left_out = (
        data[:_CHECKSUM]
        + data[_CHECKSUM + 4 : _CERTIFICATES_ENTRY]
        + data[_CERTIFICATES_ENTRY + 8 : -24]
    )
    assert pe.authenticode_digest(pe.parse(data)) == hashlib.sha256(left_out).digest()
    longer = pe.authenticode_digest(pe.parse(data), algorithm="sha384")
    assert longer == hashlib.sha384(left_out).digest()
    assert pe.authenticode_digest(pe.parse(data)) == pe.authenticode_digest(
        pe.parse(efi_program(certificates=b"d" * 24))
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_other_flipped_bit_is_another_digest_or_no_program(source: st.DataObject) -> None:
    data = bytearray(efi_program())
    whole = pe.authenticode_digest(pe.parse(bytes(data)))
    byte = source.draw(st.integers(0, len(data) - 1))
    data[byte] ^= 1 << source.draw(st.integers(0, 7))
    try:
        changed = pe.authenticode_digest(pe.parse(bytes(data)))
    except FormatError:
        return
    same = _CHECKSUM <= byte < _CHECKSUM + 4
    assert (changed == whole) is same


@pytest.mark.parametrize(("place", "size"), [(512, 0), (0, 8), (4096, 8)])
def test_a_certificate_table_is_at_the_end_of_the_file_or_not_there(place: int, size: int) -> None:
    data = bytearray(efi_program())
    entry = place.to_bytes(4, "little") + size.to_bytes(4, "little")
    data[_CERTIFICATES_ENTRY : _CERTIFICATES_ENTRY + 8] = entry
    with pytest.raises(FormatError, match="certificates end outside"):
        pe.parse(bytes(data))


def test_added_sections_are_read_back_and_lie_where_the_rules_want_them() -> None:
    stub = pe.parse(efi_program())
    data = pe.add_sections(stub, ((".cmdline", b"a=1"), (".linux", b"k" * 5000)))
    program = pe.parse(data)
    assert program.content(".cmdline") == b"a=1"
    assert program.content(".linux") == b"k" * 5000
    assert program.content(".text") == b"code"
    assert program.content(".dtb") is None
    for section in program.sections:
        assert section.virtual_address % 4096 == 0
        assert section.pointer_to_raw_data % 512 == 0
    last = program.sections[-1]
    size_of_image = int.from_bytes(data[88 + 56 : 88 + 60], "little")
    assert size_of_image == last.virtual_address + 8192


@pytest.mark.parametrize(
    ("stub", "contents"),
    [
        (efi_program(certificates=b"c" * 8), ((".linux", b"k"),)),
        (efi_program() + bytes(512), ((".linux", b"k"),)),
        (efi_program(), ((".sbat", b"another"),)),
        (efi_program(), ((".linux", b""),)),
        (efi_program(), ((".too-long", b"k"),)),
        (efi_program(), ((".linux", b"k"), (".linux", b"k"))),
        (efi_program(), tuple((f".s{number}", b"k") for number in range(40))),
    ],
)
def test_what_a_stub_cannot_take_is_refused(
    stub: bytes, contents: tuple[tuple[str, bytes], ...]
) -> None:
    with pytest.raises(FormatError):
        pe.add_sections(pe.parse(stub), contents)


def test_a_section_that_lies_twice_or_over_another_is_refused() -> None:
    twice = pe.parse(efi_program(((".linux", b"a"), (".linux", b"b"))))
    with pytest.raises(FormatError, match="2 sections"):
        twice.content(".linux")
    data = bytearray(efi_program())
    table = 88 + 240
    data[table + 40 + 20 : table + 40 + 24] = data[table + 20 : table + 24]
    with pytest.raises(FormatError, match="lies over"):
        pe.parse(bytes(data))


@given(st.binary(max_size=3000))
def test_junk_is_a_format_error_and_nothing_else(data: bytes) -> None:
    for junk in (data, b"MZ" + data):
        with pytest.raises(FormatError):
            pe.parse(junk)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1535), st.binary(min_size=1, max_size=8))
def test_changed_headers_are_read_or_a_format_error(offset: int, junk: bytes) -> None:
    data = bytearray(efi_program())
    data[offset : offset + len(junk)] = junk
    try:
        program = pe.parse(bytes(data))
        pe.authenticode_digest(program)
        program.content(".sbat")
    except FormatError:
        return
