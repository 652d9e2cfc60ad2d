"""Whether an event log tells the truth about quoted registers, and what its data may be used for.

1. Extending the registers by the log's digests gives the quoted values, register by register.
2. PCR 0 starts with the locality of one StartupLocality event, which comes before its first event.
3. Separators: one a register, with the data that the specification names.
4. Separators, actions, variables, partition tables, our own tags have data that hashes to the
   event's digest; only such data is evidence.

Replay alone proves digests, never data: step 4 must not be left out before reading any. Source: TCG
PC Client Platform Firmware Profile 1.06, sections 3.3.4 (PCR use), 10.4.1 (event types, table 27)
and 10.4.5.3 (StartupLocality).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from constellation.attestation.model import Authentic
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.eventlog import (
    STARTUP_LOCALITY,
    EventType,
    TaggedEvent,
    type_name,
)
from constellation.base.binary import Reader
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.tpm.eventlog import Event, EventLog
    from constellation.attestation.tpm.structures import Alg

__all__ = [
    "CLUSTER_ID_TAG",
    "NODE_DOCUMENT_TAG",
    "extended",
    "measured_data",
    "registers",
    "verify",
]

NODE_DOCUMENT_TAG = 0x434E0001
"""taggedEventID of the node document's event; its digest covers taggedEventData."""
CLUSTER_ID_TAG = 0x434E0002
"""taggedEventID of the clusterID's event; its digest covers taggedEventData."""

_LOCALITIES = (0, 3, 4)  # TPM2_Startup from locality 0 or 3; 4: after an H-CRTM sequence
_SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"\x01\0\0\0")  # last two: error
_FIRST_OS_PCR = 8
_HASHED = frozenset(
    {
        EventType.EV_SEPARATOR,
        EventType.EV_ACTION,
        EventType.EV_EFI_ACTION,
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EV_EFI_GPT_EVENT,
    }
)
_BOOT_VARIABLES = frozenset({EventType.EV_EFI_VARIABLE_BOOT, EventType.EV_EFI_VARIABLE_BOOT2})


def verify(log: EventLog, *, bank: Alg, pcrs: Mapping[int, bytes]) -> Authentic[EventLog]:
    """Verify a log against register values that a quote made authentic.

    Only the registers in `pcrs` are proven; events of others stay claims.

    Raises:
        Untrusted: the first check that fails; says which register or event.
    """
    _check_events(log, bank)
    found = registers(log, bank=bank, pcrs=tuple(pcrs))
    for number in sorted(pcrs):
        if found[number] != pcrs[number]:
            raise Untrusted(
                f"event log: PCR {number} replays to {found[number].hex()}, "
                f"the TPM has {pcrs[number].hex()}"
            )
    return Authentic(log)


def registers(log: EventLog, *, bank: Alg, pcrs: tuple[int, ...]) -> dict[int, bytes]:
    """Replay: give the values of some registers after all events.

    Raises:
        Untrusted: the log has no digests of this bank, or StartupLocality is misplaced.
    """
    if bank not in log.banks:
        raise Untrusted(f"event log: no digests of bank {bank.name}")
    locality = _locality(log)
    digests: dict[int, list[bytes]] = {number: [] for number in pcrs}
    for event in log.events:
        if event.pcr in digests and event.type != EventType.EV_NO_ACTION:
            digests[event.pcr].append(_digest(event, bank))
    return {
        number: pcr.replay(bank, extends, pcr=number, locality=locality)
        for number, extends in digests.items()
    }


def extended(log: EventLog, *, pcr: int) -> tuple[Event, ...]:
    """Give the events that extended a register; EV_NO_ACTION never does."""
    return tuple(e for e in log.events if e.pcr == pcr and e.type != EventType.EV_NO_ACTION)


def _digest(event: Event, bank: Alg) -> bytes:
    digest = event.digest(bank)
    if digest is None:
        raise Untrusted(
            f"event log: {type_name(event.type)} of PCR {event.pcr} lacks bank {bank.name}"
        )
    return digest


def _locality(log: EventLog) -> int:
    locality, seen, extended_0 = 0, False, False
    for event in log.events:
        if event.type == EventType.EV_NO_ACTION and event.data.startswith(STARTUP_LOCALITY):
            value = event.data[len(STARTUP_LOCALITY) :]
            if seen or extended_0 or event.pcr != 0:
                # else it would reset PCR 0 in the replay, hiding what was measured before
                raise Untrusted("event log: StartupLocality twice, late, or not in PCR 0")
            if len(value) != 1 or value[0] not in _LOCALITIES:
                raise Untrusted(f"event log: StartupLocality {value[:8].hex()}, want 0, 3 or 4")
            locality, seen = value[0], True
        elif event.pcr == 0 and event.type != EventType.EV_NO_ACTION:
            extended_0 = True
    return locality


def _check_events(log: EventLog, bank: Alg) -> None:
    separated: set[int] = set()
    for index, event in enumerate(log.events):
        if event.pcr >= pcr.COUNT and event.type != EventType.EV_NO_ACTION:
            raise Untrusted(f"event log: event {index} is for PCR {event.pcr}")
        if event.type == EventType.EV_SEPARATOR:
            if event.pcr in separated:
                raise Untrusted(f"event log: PCR {event.pcr} has two separators")
            if event.pcr < _FIRST_OS_PCR and event.data not in _SEPARATORS:
                raise Untrusted(f"event log: separator of PCR {event.pcr}: {event.data[:8].hex()}")
            separated.add(event.pcr)
        measured = measured_data(event)
        if measured and _digest(event, bank) not in [pcr.digest_of(bank, m) for m in measured]:
            raise Untrusted(
                f"event log: data of event {index} ({type_name(event.type)}, PCR {event.pcr}) "
                "does not hash to its digest"
            )


def measured_data(event: Event) -> tuple[bytes, ...]:
    """Give what an event's digest may cover: one of these; none where the log does not have it."""
    if event.type in _HASHED:
        return (event.data,)
    if event.type in _BOOT_VARIABLES:
        # older firmware measured the variable's value alone (profile 1.05, table 27, footnotes)
        return (event.data, _value_of_variable(event.data))
    if event.type == EventType.EV_EFI_VARIABLE_AUTHORITY:
        # shim logs one byte more than it measures, after the end of UEFI_VARIABLE_DATA
        return (event.data, event.data[:-1])
    if event.type == EventType.EV_EVENT_TAG:
        # other tags (loaders, kernels, Windows) describe data that is not in the log
        with contextlib.suppress(FormatError):
            tagged = TaggedEvent.parse(event.data)
            if tagged.tag in (NODE_DOCUMENT_TAG, CLUSTER_ID_TAG):
                return (tagged.data,)
    return ()


def _value_of_variable(data: bytes) -> bytes:
    """Give what follows name and sizes in UEFI_VARIABLE_DATA; all of it where it is not one."""
    read = Reader(data, what="UEFI_VARIABLE_DATA", order="little")
    try:
        read.take(16, "VariableName")
        name_size, value_size = 2 * read.number(8, "UnicodeNameLength"), read.number(8, "size")
        read.take(name_size, "UnicodeName")
        return read.take(value_size, "VariableData")
    except FormatError:
        return data
