"""How long does the replay of a machine's event log take, from bytes to verdict?

A published log of a GCE machine with its SHA-256 registers: parsed, replayed, compared; ours also
checks that the data of separators, actions and variables hash to their digests. Beside it
go-eventlog parsing and replaying the same. The replay of a log is a few hundred hashes of 64 bytes:
what differs is the reading.
"""

from __future__ import annotations

import json
from typing import Any

from bench.turns import GoPeer, compare, python
from constellation.attestation.tpm import replay
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg
from tests.vectors import evidence

__all__ = ["measure"]

_LOG = "gce-ubuntu-2404-amd-sevsnp"


def measure(repetitions: int) -> dict[str, Any]:
    """Compare with go-eventlog."""
    item = evidence.items("tpm-eventlog")[_LOG]
    data = evidence.read("tpm-eventlog", item, "binary_bios_measurements")
    values = item["expected"]["pcr_banks"]["sha256"]
    pcrs = {int(number): bytes.fromhex(value) for number, value in values.items()}

    def once() -> None:
        replay.verify(EventLog.parse(data), bank=Alg.SHA256, pcrs=pcrs)

    peer = GoPeer("replay_log", {"log": data, "pcrs": json.dumps(values).encode()})
    try:
        return compare(
            f"event log of {len(EventLog.parse(data).events)} events: bytes to verdict",
            {"ours": python(once)},
            {"go-eventlog": peer.measure},
            repetitions=repetitions,
            count=10,
        )
    finally:
        peer.close()
