"""Which event makes a register differ from what was expected, said for people.

With the log that was expected, the first event that differs is the one. With reference values alone
it is found where taking events away gives an accepted value; else every event that a machine
itself chooses (no separator) is named. Source: PCR arithmetic, `pcr`; nothing is trusted here: the
register was refused already, this only says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.tpm import pcr as arithmetic
from constellation.attestation.tpm.eventlog import EventType, describe
from constellation.attestation.tpm.replay import extended, registers

if TYPE_CHECKING:
    from constellation.attestation.tpm.eventlog import Event, EventLog
    from constellation.attestation.tpm.structures import Alg

__all__ = ["Explanation", "explain"]

_MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why register `pcr` has `found` where one of `expected` was wanted; `event` in words."""

    pcr: int
    expected: tuple[bytes, ...]
    found: bytes
    event: str

    def __str__(self) -> str:
        wanted = " or ".join(value.hex() for value in self.expected) or "nothing"
        return f"pcr{self.pcr}: expected {wanted}, found {self.found.hex()}: {self.event}"


def explain(
    pcr: int,
    *,
    bank: Alg,
    found: EventLog,
    accepted: tuple[bytes, ...],
    expected: EventLog | None = None,
) -> Explanation:
    """Explain a register that a verified log replays to another value than the accepted ones.

    Args:
        pcr: the register.
        bank: the bank that was quoted.
        found: the machine's log, verified against its quote.
        accepted: reference values; may be empty if `expected` is given.
        expected: the log of a machine that would be accepted, if there is one.
    """
    value = registers(found, bank=bank, pcrs=(pcr,))[pcr]
    if expected is not None:
        accepted = accepted or (registers(expected, bank=bank, pcrs=(pcr,))[pcr],)
        text = _against_log(extended(expected, pcr=pcr), extended(found, pcr=pcr), bank)
    else:
        text = _against_values(accepted, extended(found, pcr=pcr), bank, pcr)
    return Explanation(pcr=pcr, expected=accepted, found=value, event=text)


def _against_log(expected: tuple[Event, ...], found: tuple[Event, ...], bank: Alg) -> str:
    for wanted, event in zip(expected, found, strict=False):
        if wanted.digest(bank) != event.digest(bank):
            return f"event {_named(event, bank)}, expected {_named(wanted, bank)}"
    if len(found) > len(expected):
        return f"event {_named(found[len(expected)], bank)} was not expected"
    if len(found) < len(expected):
        return f"event {_named(expected[len(found)], bank)} is missing"
    return "the events are the expected ones"


def _against_values(
    accepted: tuple[bytes, ...], found: tuple[Event, ...], bank: Alg, pcr: int
) -> str:
    if not found:
        return "no event extended it"
    digests = [event.digest(bank) or b"" for event in found]
    for index, event in enumerate(found):
        without = digests[:index] + digests[index + 1 :]
        if any(arithmetic.replay(bank, d, pcr=pcr) in accepted for d in (without, digests[:index])):
            return f"event {_named(event, bank)} was not expected"
    chosen = [event for event in found if event.type != EventType.EV_SEPARATOR] or list(found)
    named = "; ".join(_named(event, bank) for event in chosen[:_MAX_NAMED])
    if len(chosen) == 1:
        return f"event {named}"
    more = f" and {len(chosen) - _MAX_NAMED} more" if len(chosen) > _MAX_NAMED else ""
    return f"one of its {len(chosen)} events: {named}{more}"


def _named(event: Event, bank: Alg) -> str:
    return f"{describe(event)} ({(event.digest(bank) or b'').hex()})"
