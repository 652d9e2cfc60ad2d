"""Event logs of real machines: parsed, packed back, replayed, and edited."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.tpm.eventlog import (
    STARTUP_LOCALITY,
    Event,
    EventLog,
    EventType,
    TaggedEvent,
)
from constellation.attestation.tpm.replay import registers, verify
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import FormatError, Untrusted
from tests.vectors import evidence

PLATFORM = "tpm-eventlog"
BANKS = {"sha1": Alg.SHA1, "sha256": Alg.SHA256, "sha384": Alg.SHA384}
ITEMS = evidence.items(PLATFORM)
LOGS = sorted(i for i, item in ITEMS.items() if "replay" in item["values"])
MUTATIONS = {m["id"]: m for m in evidence.mutations(PLATFORM)}


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


PCR_LOGS = sorted(i for i in LOGS if ITEMS[i]["expected"].get("pcr_banks"))


@pytest.mark.parametrize("name", PCR_LOGS)
def test_a_real_log_is_authentic_for_the_registers_of_its_machine(name: str) -> None:
    log = parse(ITEMS[name])
    for bank, pcrs in ITEMS[name]["expected"]["pcr_banks"].items():
        verify(log, bank=BANKS[bank], pcrs={int(n): bytes.fromhex(v) for n, v in pcrs.items()})
