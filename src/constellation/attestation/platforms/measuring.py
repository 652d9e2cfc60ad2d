"""How does a node measure, whatever its variant? It extends its TPM, and writes this boot's log.

The disk mapper calls `measure_node_document` while it alone has the TPM; the attestation agent the
rest. Everything here does I/O; what is measured is `node_events`, what it is worth the verifiers
say. Source: design, section 6.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.attestation.platforms.node_events import (
    CLUSTER_PCR,
    cluster_event,
    document_event,
)
from constellation.attestation.tpm.device import Tpm
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Conflict, FormatError, Unavailable
from constellation.base.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.attestation.tpm.eventlog import Event

__all__ = ["give_to_cluster", "is_given_to_cluster", "measure_node_document"]

_CLUSTER_ID_BYTES = 32


async def measure_node_document(
    tpm_path: Path,
    document: bytes,
    *,
    firmware_log: Path,
    event_log: Path,
    bank: Alg = Alg.SHA256,
) -> None:
    """Extend PCR 8 by the node document and write the log of this boot: firmware's, then this.

    Raises:
        Conflict: PCR 8 was extended since power-on.
        FormatError: the firmware's log is not one, or has no digests of the bank.
        Unavailable: the TPM or the firmware's log is not there.
    """
    log = EventLog.parse(await _read(firmware_log))
    async with await Tpm.connect(tpm_path) as tpm:
        event = document_event(document, bank=bank)
        await _extend_once(tpm, event, log=log, path=event_log, bank=bank)


async def is_given_to_cluster(tpm: Tpm, *, bank: Alg = Alg.SHA256) -> bool:
    """Say whether PCR 15 was extended since power-on."""
    values = await tpm.read_pcrs((CLUSTER_PCR,), bank=bank)
    return any(values[CLUSTER_PCR])


async def give_to_cluster(
    tpm: Tpm, cluster_id: bytes, *, event_log: Path, bank: Alg = Alg.SHA256
) -> None:
    """Extend PCR 15 by the clusterID (32 bytes), once a boot, and append to the boot's log.

    Raises:
        Conflict: PCR 15 was extended since power-on.
        ValueError: another size.
    """
    if len(cluster_id) != _CLUSTER_ID_BYTES:
        raise ValueError(f"clusterID: {len(cluster_id)} bytes, want {_CLUSTER_ID_BYTES}")
    log = EventLog.parse(await _read(event_log))
    event = cluster_event(cluster_id, bank=bank)
    await _extend_once(tpm, event, log=log, path=event_log, bank=bank)


async def _extend_once(tpm: Tpm, event: Event, *, log: EventLog, path: Path, bank: Alg) -> None:
    if bank not in log.banks:
        raise FormatError(f"event log: the firmware's log has no digests of bank {bank.name}")
    values = await tpm.read_pcrs((event.pcr,), bank=bank)
    if any(values[event.pcr]):
        raise Conflict(
            f"PCR {event.pcr} was extended since power-on: {values[event.pcr].hex()}",
            hint="reboot the node",
        )
    await tpm.extend(event.pcr, event.digests[0][1], bank=bank)
    await asyncio.to_thread(write_atomic, path, log.appended(event).pack(), mode=0o644)


async def _read(path: Path) -> bytes:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise Unavailable(f"event log {path}: {error.strerror}") from error
