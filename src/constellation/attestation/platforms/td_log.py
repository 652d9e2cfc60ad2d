"""Whether a CC event log tells what a TD's registers hold, and which event made one differ.

1. The log is crypto-agile and has SHA-384 digests. Its register numbers are those of the CC
   measurement protocol: 0 MRTD, 1 to 4 RTMR0 to RTMR3.
2. Its events replay to RTMR0, RTMR1 and RTMR2. RTMR3 is ours: its value is known without a log.
3. No register has more separators than PCRs stand behind it; their data is what the specification
   names. Data of separators, actions, variables and partition tables hashes to the digest.

Source: UEFI 2.10, section 38.4 (CC measurement protocol, event log, register mapping); TCG PC
Client Platform Firmware Profile 1.06, table 27. Only digests, and the data of step 3, are proven.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from constellation.attestation import policy as rules
from constellation.attestation.model import Authentic
from constellation.attestation.policy import Exactly, OneOf, Policy
from constellation.attestation.tpm import replay
from constellation.attestation.tpm.eventlog import EventLog, EventType, type_name
from constellation.attestation.tpm.explain import explain
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Rejected, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import Claims
    from constellation.attestation.tpm.eventlog import Event

__all__ = ["parse_log", "require", "rtmrs", "verify_log"]

LOGGED = (0, 1, 2)
"""RTMRs that firmware, boot loader and kernel extend with an entry in the log."""

_FIRST = 1  # register number of RTMR0 in a log
_LAST = 4
# PCR 0, 1 and 7 come to RTMR0 in some firmware; 2 to 6; 8 to 15; none (UEFI 2.10, 38.4.1)
_MAX_SEPARATORS = {1: 3, 2: 5, 3: 8, 4: 0}
_SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"\x01\0\0\0")


def parse_log(data: bytes) -> EventLog:
    """Read the log area that the CCEL ACPI table points to; the rest of the area may be filled.

    Raises:
        FormatError: another layout.
    """
    return EventLog.parse(data, padded=True)


def rtmrs(log: EventLog) -> tuple[bytes, ...]:
    """Replay: give RTMR0 to RTMR3 (48 bytes each) after all events.

    Raises:
        Untrusted: the log has no SHA-384 digests.
    """
    found = replay.registers(log, bank=Alg.SHA384, pcrs=tuple(range(_FIRST, _LAST + 1)))
    return tuple(found[number] for number in sorted(found))


def verify_log(log: EventLog, *, registers: Mapping[int, bytes]) -> Authentic[EventLog]:
    """Verify a log against RTMRs (number -> 48 bytes) that a quote made authentic.

    Raises:
        Untrusted: the first check that fails; says which register or event.
    """
    separators: Counter[int] = Counter()
    for index, event in enumerate(log.events):
        if event.type == EventType.EV_NO_ACTION:
            continue
        what = f"CC event log: event {index} ({type_name(event.type)}, register {event.pcr})"
        if not _FIRST <= event.pcr <= _LAST:
            raise Untrusted(f"{what}: want registers 1 to 4")
        if event.type == EventType.EV_SEPARATOR:
            separators[event.pcr] += 1
            if separators[event.pcr] > _MAX_SEPARATORS[event.pcr]:
                raise Untrusted(f"{what}: more separators than PCRs stand behind the register")
            if event.data not in _SEPARATORS:
                raise Untrusted(f"{what}: separator {event.data[:8].hex()}")
        measured = [hashlib.sha384(data).digest() for data in replay.measured_data(event)]
        if measured and _digest(event, what) not in measured:
            raise Untrusted(f"{what}: its data does not hash to its digest")
    found = rtmrs(log)
    for number, value in sorted(registers.items()):
        if found[number] != value:
            raise Untrusted(
                f"CC event log: RTMR{number} replays to {found[number].hex()}, "
                f"the quote has {value.hex()}"
            )
    return Authentic(log)


def require(policy: Policy, claims: Claims, *, log: EventLog) -> tuple[str, ...]:
    """Give a line for each claim that went unchecked, or refuse; RTMRs are explained.

    Raises:
        Rejected: with every finding; an RTMR's says which event makes the difference.
    """
    try:
        return rules.require(policy, claims)
    except Rejected as error:
        found = tuple(_explained(line, policy, log) for line in error.findings)
        raise Rejected(found, hint=error.hint) from None


def _explained(finding: str, policy: Policy, log: EventLog) -> str:
    name = finding.partition(":")[0]
    if name not in {f"rtmr{n}" for n in LOGGED}:
        return finding
    match policy.get(name):
        case Exactly(bytes() as value):
            accepted: tuple[bytes, ...] = (value,)
        case OneOf(values):
            accepted = tuple(value for value in values if isinstance(value, bytes))
        case _:
            return finding
    number = int(name.removeprefix("rtmr")) + _FIRST
    why = explain(number, bank=Alg.SHA384, found=log, accepted=accepted)
    return f"{finding}: {why.event}"


def _digest(event: Event, what: str) -> bytes:
    digest = event.digest(Alg.SHA384)
    if digest is None:
        raise Untrusted(f"{what}: no SHA-384 digest")
    return digest
