"""Published IMA lists, their edits, and lists made here for the other templates."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.ima import measurement_list as ima
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError, Untrusted
from tests.vectors import evidence

ITEMS = evidence.items("ima")
LISTS = {i: evidence.read("ima", item, "list") for i, item in ITEMS.items()}
ARCHIVE = LISTS["keylime-archive-ng"]
QUOTED = bytes.fromhex(ITEMS["keylime-archive-ng"]["values"]["pcr10_sha1"])


@pytest.mark.parametrize("item", ITEMS)
def test_a_published_list_replays_to_its_published_register(item: str) -> None:
    entries, values = ima.parse(LISTS[item]), ITEMS[item]["values"]
    assert len(entries) == values["entries"]
    assert sum(e.is_violation for e in entries) == values["violations"]
    assert {e.template for e in entries} == set(values["templates"])
    assert ima.replay(entries, bank=Alg.SHA1).hex() == values["pcr10_sha1"]
    if any(bytes.fromhex(values["pcr10_sha256"])):  # the source did not replay ima-buf there
        assert ima.replay(entries, bank=Alg.SHA256).hex() == values["pcr10_sha256"]


def edit(number: int, old: bytes, new: bytes) -> bytes:
    lines = ARCHIVE.split(b"\n")
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new)
    return b"\n".join(lines)


def test_a_changed_path_or_digest_is_refused_though_the_register_replays() -> None:
    third, fourth = (line.split(b" ") for line in ARCHIVE.split(b"\n")[2:4])
    with pytest.raises(Untrusted, match="line 3: template hash"):
        ima.parse(edit(3, third[4], third[4] + b"x"))
    flipped = fourth[3][:-1] + (b"0" if fourth[3][-1:] != b"0" else b"1")
    with pytest.raises(Untrusted, match="line 4: template hash"):
        ima.parse(edit(4, fourth[3], flipped))


def test_a_removed_entry_or_a_shortened_list_does_not_reach_the_quoted_register() -> None:
    lines = ARCHIVE.splitlines(keepends=True)
    for changed in (lines[:4] + lines[5:], lines[:800], lines[:1] + lines[2:3] + lines[1:2]):
        with pytest.raises(Untrusted, match="PCR 10 replays"):
            ima.verify(ima.parse(b"".join(changed)), bank=Alg.SHA1, quoted=QUOTED)


def test_entries_after_the_quote_are_not_proven() -> None:
    entries = ima.parse(ARCHIVE)
    assert ima.verify(entries, bank=Alg.SHA1, quoted=QUOTED).claims == entries
    middle = ima.replay(entries[:100], bank=Alg.SHA1)
    assert ima.verify(entries, bank=Alg.SHA1, quoted=middle).claims == entries[:100]
    assert ima.verify(entries, bank=Alg.SHA1, quoted=bytes(20)).claims == ()


def test_a_violation_extends_ones_and_is_reported() -> None:
    line = b"10 " + b"0" * 40 + b" ima-ng sha256:" + b"0" * 64 + b" /var/log/x\n"
    (entry,) = ima.parse(line)
    assert entry.is_violation
    assert entry.path == "/var/log/x"
    expected = hashlib.sha256(bytes(32) + b"\xff" * 32).digest()
    assert ima.replay([entry], bank=Alg.SHA256) == expected


def test_the_oldest_template_has_two_fixed_fields() -> None:
    digest, name = hashlib.sha1(b"x").digest(), b"/bin/a b"  # noqa: S324
    template = hashlib.sha1(digest + name.ljust(256, b"\0")).hexdigest()  # noqa: S324
    (entry,) = ima.parse(f"10 {template} ima {digest.hex()} {name.decode()}\n".encode())
    assert (entry.path, entry.algorithm) == ("/bin/a b", "sha1")


def test_the_newer_digest_field_names_its_kind() -> None:
    digest = hashlib.sha256(b"x").digest()
    field, name = b"verity:sha256:\0" + digest, b"/bin/a\0"
    packed = len(field).to_bytes(4, "little") + field + len(name).to_bytes(4, "little") + name
    template = hashlib.sha1(packed).hexdigest()  # noqa: S324
    (entry,) = ima.parse(f"10 {template} ima-ngv2 verity:sha256:{digest.hex()} /bin/a\n".encode())
    assert entry.digest == digest


@pytest.mark.parametrize(
    "line",
    [
        b"11 " + b"0" * 40 + b" ima-ng sha1:" + b"0" * 40 + b" /x\n",
        b"10 " + b"0" * 38 + b" ima-ng sha1:" + b"0" * 40 + b" /x\n",
        b"10 " + b"0" * 40 + b" ima-new sha1:" + b"0" * 40 + b" /x\n",
        b"10 " + b"0" * 40 + b" ima-ng sha1:" + b"0" * 38 + b" /x\n",
        b"10 " + b"0" * 40 + b" ima-ng crc:00 /x\n",
        b"10 " + b"0" * 40 + b" ima-ng " + b"0" * 40 + b" /x\n",
        b"10 " + b"0" * 40 + b" ima-sig sha1:" + b"0" * 40 + b" /x sig\n",
        b"10 " + b"0" * 40 + b"\n",
        b"\xff\n",
        b"\n",
        b"10 " + b"0" * 70000 + b"\n",
    ],
)
def test_lines_of_another_form_are_format_errors(line: bytes) -> None:
    with pytest.raises(FormatError):
        ima.parse(line)


@given(st.binary(min_size=1, max_size=200))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for data in (junk, b"10 " + b"0" * 40 + b" ima-ng " + junk, ARCHIVE[:300] + junk):
        try:
            ima.parse(data)
        except (FormatError, Untrusted):
            continue
