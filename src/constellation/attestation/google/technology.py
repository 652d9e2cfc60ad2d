"""Which confidential technology GCE's firmware says that an instance runs with.

An EV_NONHOST_INFO event in PCR 0: "GCE NonHostInfo" NUL, one byte of technology, 15 zero bytes.
Source: Google, go-tpm-tools, "GCE NonHost info event"; TCG PC Client Platform Firmware Profile
1.06, table 27. Only an event whose data hashes to its digest, in a log that was verified against
quoted registers, says anything; then it is the firmware's word, and the hypervisor chose that.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.eventlog import EventType
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from constellation.attestation.tpm.eventlog import EventLog
    from constellation.attestation.tpm.structures import Alg

__all__ = ["Technology", "technology"]

_SIGNATURE = b"GCE NonHostInfo\0"
_EVENT_BYTES = 32


class Technology(IntEnum):
    """What protects the instance's memory."""

    NONE = 0
    AMD_SEV = 1
    AMD_SEV_ES = 2
    INTEL_TDX = 3
    AMD_SEV_SNP = 4


def technology(log: EventLog, *, bank: Alg) -> Technology:
    """Give the technology that a verified log names.

    Raises:
        FormatError: the event has another layout, or an unknown technology.
        Untrusted: no such event, several, or data that its digest does not cover.
    """
    found = [
        event
        for event in log.events
        if event.type == EventType.EV_NONHOST_INFO and event.pcr == 0
        if event.data.startswith(_SIGNATURE)
    ]
    if len(found) != 1:
        raise Untrusted(f"event log: {len(found)} GCE NonHostInfo events in PCR 0, want 1")
    (event,) = found
    if event.digest(bank) != pcr.digest_of(bank, event.data):
        raise Untrusted("event log: GCE NonHostInfo does not hash to its digest")
    body = event.data[len(_SIGNATURE) :]
    if len(event.data) != _EVENT_BYTES or any(body[1:]):
        raise FormatError(f"GCE NonHostInfo: {event.data.hex()} is not of its layout")
    try:
        return Technology(body[0])
    except ValueError:
        raise FormatError(f"GCE NonHostInfo: unknown technology {body[0]}") from None
