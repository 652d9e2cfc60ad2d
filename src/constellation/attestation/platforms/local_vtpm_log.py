"""What a local node's firmware, disk mapper and agent measure: registers, events, predictions.

Registers (seams, "PCRs of the local flavour"; SHA-256 bank):
 0 version of the firmware · 0 to 7 separators · 4 node image · 9 command line · 11 os-release and
 command line as a unified kernel image has them · 8 node document · 15 clusterID · 12 to 14 zero.
Unlike in real firmware every event's data is in the log (but the image's, too large), so that no
byte of the log goes unproven: `check` demands it. Pure: who extends a TPM is `local_vtpm_machine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.platforms.node_events import CLUSTER_PCR, DOCUMENT_PCR
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.eventlog import (
    Event,
    EventLog,
    EventType,
    TaggedEvent,
    type_name,
)
from constellation.attestation.tpm.replay import CLUSTER_ID_TAG, NODE_DOCUMENT_TAG
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BANK",
    "CLUSTER_PCR",
    "DOCUMENT_PCR",
    "IMAGE_PCRS",
    "QUOTED_PCRS",
    "ZERO_PCRS",
    "TpmEvidence",
    "check",
    "firmware_log",
    "predicted_pcrs",
]

BANK = Alg.SHA256
IMAGE_PCRS = (0, 4, 7, 9, 11)
"""Registers that depend on image and command line alone: those with reference values."""
ZERO_PCRS = (12, 13, 14)
QUOTED_PCRS = (0, 4, 7, 8, 9, 11, 12, 13, 14, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """What a local machine sends, as canonical JSON (`base.decode`); untrusted.

    `quote` TPMS_ATTEST, `signature` TPMT_SIGNATURE, `ak_public` TPMT_PUBLIC, `ak_certificate` DER,
    `pcrs` register -> value (32 bytes), `event_log` TCG event log of this boot.
    """

    quote: bytes
    signature: bytes
    ak_public: bytes
    ak_certificate: bytes
    pcrs: dict[int, bytes]
    event_log: bytes


_VERSION = "constellation-local-1\0".encode("utf-16-le")
_SEPARATOR = bytes(4)
_SEPARATED = range(8)
_IMAGE_LOAD_EVENT = bytes(32)  # UEFI_IMAGE_LOAD_EVENT (PFP 1.06, 10.2.3): no address, no path
_ALLOWED: dict[int, frozenset[int]] = {
    0: frozenset({EventType.EV_S_CRTM_VERSION, EventType.EV_SEPARATOR}),
    4: frozenset({EventType.EV_EFI_BOOT_SERVICES_APPLICATION, EventType.EV_SEPARATOR}),
    7: frozenset({EventType.EV_SEPARATOR}),
    8: frozenset({EventType.EV_EVENT_TAG}),
    9: frozenset({EventType.EV_IPL}),
    11: frozenset({EventType.EV_IPL}),
    15: frozenset({EventType.EV_EVENT_TAG}),
}
_UNQUOTED = tuple(number for number in _SEPARATED if number not in QUOTED_PCRS)
_TAGS = {DOCUMENT_PCR: NODE_DOCUMENT_TAG, CLUSTER_PCR: CLUSTER_ID_TAG}


def firmware_log(
    image_digest: bytes, command_line: str, os_release: bytes
) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
    """Give what the firmware of a local machine measures at power-on.

    Args:
        image_digest: SHA-256 (32 bytes) of the node image's bytes.
        command_line: the kernel's, without final newline.
        os_release: the image's /usr/lib/os-release.

    Returns:
        the TCG event log, and (register, digest) to extend, in this order.

    Raises:
        ValueError: the digest has another size.
    """
    if len(image_digest) != pcr.digest_size(BANK):
        raise ValueError(f"image digest: {len(image_digest)} bytes, want 32")
    line = command_line.encode()
    events = [_hashed(0, EventType.EV_S_CRTM_VERSION, _VERSION)]
    events += [_hashed(number, EventType.EV_SEPARATOR, _SEPARATOR) for number in _SEPARATED]
    events.append(
        Event(
            pcr=4,
            type=EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
            digests=((BANK, image_digest),),
            data=_IMAGE_LOAD_EVENT,
        )
    )
    measured = ((9, line), (11, b".osrel\0"), (11, os_release), (11, b".cmdline\0"), (11, line))
    events += [_hashed(number, EventType.EV_IPL, data) for number, data in measured]
    log = EventLog.new(BANK).appended(*events)
    return log.pack(), tuple((event.pcr, event.digests[0][1]) for event in events)


def predicted_pcrs(extends: Iterable[tuple[int, bytes]]) -> dict[int, bytes]:
    """Give the values of `IMAGE_PCRS` after the extends of `firmware_log`: reference values."""
    values = {number: pcr.initial(BANK, number) for number in IMAGE_PCRS}
    for number, digest in extends:
        if number in values:
            values[number] = pcr.extend(BANK, values[number], digest)
    return values


def check(log: EventLog) -> None:
    """Check what makes a local log's every byte proven by its registers (`replay` does the rest).

    Raises:
        Untrusted: an event whose type or data its digest does not cover.
    """
    if log.spec_id != EventLog.new(BANK).spec_id:
        raise Untrusted("event log: its header is not that of a local machine")
    unquoted = tuple(event.pcr for event in log.events if event.pcr not in QUOTED_PCRS)
    if unquoted != _UNQUOTED:
        raise Untrusted(f"event log: registers {unquoted} are not quoted, expected {_UNQUOTED}")
    for index, event in enumerate(log.events):
        where = f"event log: event {index} ({type_name(event.type)}, PCR {event.pcr})"
        if event.type not in _ALLOWED.get(event.pcr, _ELSEWHERE[event.pcr in _UNQUOTED]):
            raise Untrusted(f"{where} is not one of a local machine")
        if event.type == EventType.EV_EFI_BOOT_SERVICES_APPLICATION:
            if event.data != _IMAGE_LOAD_EVENT:
                raise Untrusted(f"{where}: its data is not proven by its digest")
            continue
        data = event.data
        if event.type == EventType.EV_EVENT_TAG:
            tagged = TaggedEvent.parse(data)
            if tagged.tag != _TAGS.get(event.pcr):
                raise Untrusted(f"{where}: tag {tagged.tag:#010x} does not belong there")
            data = tagged.data
        if event.digest(BANK) != pcr.digest_of(BANK, data):
            raise Untrusted(f"{where}: its data does not hash to its digest")


_ELSEWHERE = {
    True: frozenset({EventType.EV_SEPARATOR}),
    False: frozenset({EventType.EV_IPL}),  # PCR 12 to 14: refused by policy, and explained
}


def _hashed(number: int, kind: EventType, data: bytes) -> Event:
    digest = pcr.digest_of(BANK, data)
    return Event(pcr=number, type=kind, digests=((BANK, digest),), data=data)
