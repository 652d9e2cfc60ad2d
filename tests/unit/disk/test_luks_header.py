"""A LUKS2 header is ours to the last parameter, or refused; starting from a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Rejected
from constellation.disk.luks_header import (
    AREA_BYTES,
    HEADER_BYTES,
    MARKER,
    finishing_writes,
    judge_luks,
)
from constellation.disk.superblock import State
from tests.fakes import luks_edits
from tests.fakes.luks_edits import COPY_BYTES as COPY
from tests.fakes.luks_edits import setting
from tests.vectors.luks2_header import UUID, made_header

if TYPE_CHECKING:
    from collections.abc import Callable

SALT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def header(start: bytes | None = None) -> bytes:
    return (made_header() if start is None else start) + bytes(AREA_BYTES)


def sealed(edit: Callable[[bytearray], None], *, copies: tuple[int, ...] = (0, COPY)) -> bytes:
    return header(luks_edits.sealed(made_header(), edit, copies=copies))


def with_json(edit: Callable[[Any], None]) -> bytes:
    return header(luks_edits.with_json(made_header(), edit))


def test_a_header_that_cryptsetup_made_for_us_is_known_by_its_uuid() -> None:
    found = judge_luks(header(), blank=False)
    assert (found.state, found.uuid) == (State.KNOWN, UUID)


def test_a_blank_disk_and_one_whose_formatting_was_interrupted_are_new() -> None:
    assert judge_luks(bytes(HEADER_BYTES), blank=True).state is State.NEW
    rest = header()[len(MARKER) :]
    assert judge_luks(MARKER + rest, blank=False).state is State.NEW


def test_a_power_cut_while_a_disk_is_finished_leaves_a_new_or_a_known_one() -> None:
    disk = bytearray(MARKER.ljust(HEADER_BYTES, b"\0"))
    first, last = finishing_writes(header())
    for size in (0, 512, 8192, COPY, len(first[1])):
        disk[first[0] : first[0] + size] = first[1][:size]
        assert judge_luks(bytes(disk), blank=False).state is State.NEW
    assert (last[0], len(last[1])) == (0, len(MARKER))
    # a sector is written whole or not at all, and only the first has anything in it
    assert not any(last[1][512:])
    assert not any(MARKER[512:])
    disk[: len(MARKER)] = last[1]
    assert judge_luks(bytes(disk), blank=False).state is State.KNOWN
    assert bytes(disk) == header()


def test_zeros_at_the_start_alone_do_not_make_a_disk_blank() -> None:
    with pytest.raises(Rejected, match="neither blank nor LUKS2"):
        judge_luks(bytes(HEADER_BYTES), blank=False)


def test_a_marker_that_is_not_whole_is_none() -> None:
    with pytest.raises(Rejected, match="neither blank"):
        judge_luks(MARKER[:-1] + b"x" + bytes(HEADER_BYTES - len(MARKER)), blank=False)


SEGMENT, KEYSLOT = "segments/0", "keyslots/0"
JSON_VALUES = [
    # a cipher that is none: the node would write plain text
    (f"{SEGMENT}/encryption", "cipher_null-ecb"),
    (f"{SEGMENT}/encryption", "aes-xts-plain64"),
    (f"{SEGMENT}/integrity/type", "none"),
    (f"{SEGMENT}/integrity/journal_encryption", "cbc(aes)"),
    (f"{SEGMENT}/integrity/journal_integrity", "crc32"),
    (f"{SEGMENT}/type", "linear"),
    (f"{SEGMENT}/offset", "2097152"),
    (f"{SEGMENT}/size", "4096"),
    (f"{SEGMENT}/iv_tweak", "8"),
    (f"{SEGMENT}/sector_size", 512),
    (f"{KEYSLOT}/type", "reencrypt"),
    (f"{KEYSLOT}/key_size", 32),
    (f"{KEYSLOT}/af/type", "luks2"),
    (f"{KEYSLOT}/af/stripes", 1),
    (f"{KEYSLOT}/af/hash", "sha1"),
    (f"{KEYSLOT}/area/type", "datashift"),
    (f"{KEYSLOT}/area/offset", "1048576"),
    (f"{KEYSLOT}/area/size", "4096"),
    (f"{KEYSLOT}/area/encryption", "cipher_null-ecb"),
    (f"{KEYSLOT}/area/key_size", 32),
    (f"{KEYSLOT}/kdf/type", "argon2id"),
    (f"{KEYSLOT}/kdf/hash", "sha1"),
    # the node would hash for hours
    (f"{KEYSLOT}/kdf/iterations", 4294967295),
    (f"{KEYSLOT}/kdf/salt", "AAAA"),
    ("digests/0/type", "none"),
    ("digests/0/keyslots", []),
    ("digests/0/segments", ["0", "1"]),
    ("digests/0/hash", "sha1"),
    ("digests/0/iterations", 4294967295),
    ("digests/0/salt", "AAAA"),
    ("digests/0/digest", ""),
    ("config/json_size", "16384"),
    ("config/keyslots_size", "0"),
]


@pytest.mark.parametrize(("path", "value"), JSON_VALUES)
def test_every_other_parameter_is_refused_by_name(path: str, value: object) -> None:
    dotted = path.replace("/", ".")
    with pytest.raises(Rejected, match=rf"LUKS2 metadata: {dotted} is .*, want ") as raised:
        judge_luks(with_json(setting(path, value)), blank=False)
    assert len(raised.value.findings) == 1


@pytest.mark.parametrize("group", ["keyslots", "segments", "digests"])
def test_a_second_key_slot_segment_or_digest_is_refused(group: str) -> None:
    def edit(found: Any) -> None:
        found[group]["1"] = found[group]["0"]

    with pytest.raises(Rejected, match=rf"{group}\.1"):
        judge_luks(with_json(edit), blank=False)


@pytest.mark.parametrize("group", ["keyslots", "segments", "digests"])
def test_none_at_all_is_refused(group: str) -> None:
    with pytest.raises(Rejected, match=rf"{group}\.0"):
        judge_luks(with_json(setting(group, {})), blank=False)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tokens/0", {"type": "luks2-keyring", "keyslots": ["0"], "key_description": "k"}),
        ("config/requirements", {"mandatory": ["online-reencrypt-v2"]}),
        ("config/flags", ["no-read-workqueue"]),
        (f"{SEGMENT}/flags", ["backup-final"]),
        (f"{KEYSLOT}/priority", 2),
        (f"{SEGMENT}/integrity/key_size", 0),
        ("more", {}),
        (f"{SEGMENT}/sector_size", "4096"),
        (f"{KEYSLOT}/kdf/iterations", 1000.0),
    ],
)
def test_what_we_never_write_is_not_read(path: str, value: object) -> None:
    with pytest.raises(FormatError, match="LUKS2 metadata"):
        judge_luks(with_json(setting(path, value)), blank=False)


def test_a_missing_integrity_is_refused() -> None:
    def edit(found: Any) -> None:
        del found["segments"]["0"]["integrity"]

    with pytest.raises(FormatError, match="integrity"):
        judge_luks(with_json(edit), blank=False)


def test_salts_and_digest_may_be_any_of_their_size() -> None:
    def edit(found: Any) -> None:
        found["keyslots"]["0"]["kdf"]["salt"] = SALT
        found["digests"]["0"] |= {"salt": SALT, "digest": SALT}

    assert judge_luks(with_json(edit), blank=False).uuid == UUID


BINARY_VALUES = [
    ("version", 6, b"\0\1"),
    ("hdr_size", 8, (32768).to_bytes(8, "big")),
    ("label", 24, b"photos".ljust(48, b"\0")),
    ("csum_alg", 72, b"sha1".ljust(32, b"\0")),
    ("subsystem", 208, b"ID=x"),
    ("hdr_offset", 256, (8192).to_bytes(8, "big")),
    ("UUID", 168, b"00010203-0405-0607-0809-0A0B0C0D0E0F"),
    ("UUID", 168, b"00000000-0000-0000-0000-000000000000"),
    ("UUID", 168, b"x" * 40),
]


@pytest.mark.parametrize(("name", "offset", "value"), BINARY_VALUES)
def test_every_other_binary_field_is_refused(name: str, offset: int, value: bytes) -> None:
    def edit(copy: bytearray) -> None:
        copy[offset : offset + len(value)] = value

    with pytest.raises(Rejected, match=name):
        judge_luks(sealed(edit), blank=False)


@pytest.mark.parametrize("copy", [0, COPY])
def test_a_reserved_byte_of_either_copy_is_refused(copy: int) -> None:
    with pytest.raises(FormatError, match="reserved"):
        judge_luks(sealed(lambda found: found.__setitem__(600, 1), copies=(copy,)), blank=False)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(23, 9), (168, ord("1")), (COPY - 1, 0)],
    ids=["seqid", "uuid", "json"],
)
def test_copies_that_differ_are_refused(offset: int, value: int) -> None:
    def edit(copy: bytearray) -> None:
        copy[offset] = value
        if not value:
            copy[4096:] = bytes(copy[4096:]).replace(b":", b": ", 1)[: COPY - 4096]

    with pytest.raises(Rejected, match="differ") as raised:
        judge_luks(sealed(edit, copies=(COPY,)), blank=False)
    assert len(raised.value.findings) == 1


def test_a_second_copy_with_another_magic_is_refused() -> None:
    with pytest.raises(Rejected, match="magic"):
        judge_luks(sealed(lambda c: c.__setitem__(0, 0x4C), copies=(COPY,)), blank=False)


def test_bytes_behind_the_json_are_refused() -> None:
    with pytest.raises(FormatError, match="after the JSON"):
        judge_luks(sealed(lambda copy: copy.__setitem__(COPY - 1, 1)), blank=False)


def test_a_checksum_that_does_not_fit_is_refused() -> None:
    whole = bytearray(header())
    whole[110] ^= 1  # the salt, which nothing else looks at
    with pytest.raises(Rejected, match="csum"):
        judge_luks(bytes(whole), blank=False)


def test_all_differences_are_said_at_once_and_not_more_than_a_few() -> None:
    def edit(found: Any) -> None:
        for path, value in JSON_VALUES:
            if path.startswith(("segments", "keyslots")):
                setting(path, value)(found)

    with pytest.raises(Rejected) as raised:
        judge_luks(with_json(edit), blank=False)
    assert len(raised.value.findings) == 16


@given(st.integers(0, 8 * 2 * COPY - 1))
def test_any_flipped_bit_of_either_copy_is_refused(bit: int) -> None:
    whole = bytearray(header())
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, Rejected)):
        judge_luks(bytes(whole), blank=False)


@given(st.binary(max_size=512))
def test_junk_is_never_taken_for_a_disk_of_ours(data: bytes) -> None:
    with pytest.raises((FormatError, Rejected)):
        judge_luks(data.ljust(HEADER_BYTES, b"\0"), blank=False)


def test_another_size_is_refused() -> None:
    with pytest.raises(FormatError, match="bytes read"):
        judge_luks(bytes(4096), blank=True)
