"""Event logs of real machines: parsed, packed back, replayed, and edited."""

from __future__ import annotations

import contextlib
import re
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.tpm.eventlog import (
    STARTUP_LOCALITY,
    Event,
    EventLog,
    EventType,
    TaggedEvent,
)
from constellation.attestation.tpm.explain import explain
from constellation.attestation.tpm.replay import registers, verify
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError, Untrusted
from tests.vectors import evidence

PLATFORM = "tpm-eventlog"
BANKS = {"sha1": Alg.SHA1, "sha256": Alg.SHA256, "sha384": Alg.SHA384}
ITEMS = evidence.items(PLATFORM)
LOGS = sorted(i for i, item in ITEMS.items() if "replay" in item["values"])


def raw(item: dict[str, Any]) -> bytes:
    for role in ("binary_bios", "log", "ccel"):
        if any(f["role"].startswith(role) for f in item["files"]):
            return evidence.read(PLATFORM, item, role)
    raise AssertionError(item["id"])


def parse(item: dict[str, Any]) -> EventLog:
    return EventLog.parse(raw(item), padded=item["id"].startswith("ccel"))


@pytest.mark.parametrize("name", LOGS)
def test_a_real_log_is_read_whole_and_packs_to_the_same_bytes(name: str) -> None:
    item = ITEMS[name]
    log = parse(item)
    assert log.pack() == raw(item)
    values = item["values"]
    header = 0 if log.spec_id is None else 1
    assert len(log.events) + header == values["n_events"]
    assert [bank.name.lower() for bank in log.banks] == values["algs"]
    assert (log.spec_id is not None) == values["agile"]


@pytest.mark.parametrize("name", LOGS)
def test_a_real_log_replays_to_the_known_registers(name: str) -> None:
    log = parse(ITEMS[name])
    for bank, expected in ITEMS[name]["values"]["replay"].items():
        numbers = tuple(int(number) for number in expected)
        found = registers(log, bank=BANKS[bank], pcrs=numbers)
        assert {str(n): v.hex() for n, v in found.items()} == expected


def test_two_separators_of_one_register_are_refused() -> None:
    item = ITEMS["gce-rhel8-uefi"]
    log = parse(item)
    separator = next(e for e in log.events if e.type == EventType.EV_SEPARATOR)
    with pytest.raises(Untrusted, match="two separators"):
        verify(log.appended(separator), bank=Alg.SHA256, pcrs={})


def test_startup_locality_counts_only_once_and_before_pcr_0_is_extended() -> None:
    def locality(number: int, pcr: int = 0) -> Event:
        data = STARTUP_LOCALITY + bytes([number])
        return Event(pcr=pcr, type=EventType.EV_NO_ACTION, digests=(), data=data)

    extends = Event(
        pcr=0, type=EventType.EV_POST_CODE, digests=((Alg.SHA256, b"d" * 32),), data=b""
    )
    empty = EventLog.new(Alg.SHA256)
    found = registers(empty.appended(locality(3), extends), bank=Alg.SHA256, pcrs=(0,))
    assert found[0] == sha256(bytes(31) + b"\3" + b"d" * 32).digest()
    # locality 0 changes no value: only the rule refuses it
    for log in (
        empty.appended(extends, locality(0)),
        empty.appended(locality(0), locality(0)),
        empty.appended(locality(0, pcr=1)),
    ):
        with pytest.raises(Untrusted, match="StartupLocality"):
            registers(log, bank=Alg.SHA256, pcrs=(0,))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (b"ax", "event EV_IPL 'x' .*, expected EV_IPL 'b'"),
        (b"abc", "event EV_IPL 'c' .* was not expected"),
        (b"a", "event EV_IPL 'b' .* is missing"),
    ],
)
def test_a_difference_to_an_expected_log_is_named_by_its_first_event(
    found: bytes, said: str
) -> None:
    def log(text: bytes) -> EventLog:
        letters = (bytes([letter]) for letter in text)
        return EventLog.new(Alg.SHA256).appended(
            *(
                Event(
                    pcr=9,
                    type=EventType.EV_IPL,
                    digests=((Alg.SHA256, sha256(letter).digest()),),
                    data=letter,
                )
                for letter in letters
            )
        )

    text = str(explain(9, bank=Alg.SHA256, found=log(found), accepted=(), expected=log(b"ab")))
    assert re.search(said, text)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert EventLog.parse(junk).pack() == junk


@given(st.integers(0, (1 << 32) - 1), st.binary(max_size=64))
def test_tagged_events_are_read_as_they_are_packed(tag: int, data: bytes) -> None:
    event = TaggedEvent(tag=tag, data=data)
    assert TaggedEvent.parse(event.pack()) == event


def test_a_boot_variable_is_measured_whole_or_by_its_value() -> None:
    name, value = "Boot0000".encode("utf-16-le"), b"path"
    data = bytes(16) + (8).to_bytes(8, "little") + len(value).to_bytes(8, "little") + name + value

    def log(covered: bytes) -> EventLog:
        digests = ((Alg.SHA256, sha256(covered).digest()),)
        return EventLog.new(Alg.SHA256).appended(
            Event(pcr=1, type=EventType.EV_EFI_VARIABLE_BOOT, digests=digests, data=data)
        )

    for covered in (data, value):
        verify(log(covered), bank=Alg.SHA256, pcrs={})
    for covered in (name, b"", data[:-1]):
        with pytest.raises(Untrusted, match="does not hash to its digest"):
            verify(log(covered), bank=Alg.SHA256, pcrs={})
