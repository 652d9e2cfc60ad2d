"""What the variants share whose registers are a TD's own: evidence, verification, rules.

Each variant's own file says which register holds what; here is what all of them do:
 a. The evidence is one canonical JSON document of the fields of `TdEvidence`.
 b. The quote is authentic, with all of its collateral (`tdx.verify`), and of a TD.
 c. Its report data is the binding: made for this channel, now.
 d. The CC event log replays to RTMR0, RTMR1 and RTMR2 (`td_log`).
Afterwards registers are trusted as far as Intel is; nobody else is believed.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.attestation.model import AttestationResult, Authentic, Evidence
from constellation.attestation.platforms import td_log
from constellation.attestation.policy import Exactly, OneOf, Policy, Rule, Unchecked
from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.appraise import attester_id, claims, default_policy
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import TdReport10, parse_quote
from constellation.attestation.tdx.verify import verify
from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from constellation.attestation.model import Binding, Variant
    from constellation.attestation.tdx.quote import Quote
    from constellation.attestation.tdx.status import TcbStatus
    from constellation.attestation.tdx.verify import VerifiedQuote
    from constellation.attestation.tpm.eventlog import EventLog

__all__ = [
    "IMAGE_REGISTERS",
    "TdAttester",
    "TdDevice",
    "TdEvidence",
    "VerifiedTd",
    "appraise_td",
    "cluster_event",
    "exactly",
    "image_rules",
    "td_policy",
    "verify_td",
]

IMAGE_REGISTERS = ("mr_td", "rtmr0", "rtmr1", "rtmr2")
"""What firmware and node image decide."""

_MAX_EVIDENCE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TdEvidence:
    """What a node sends; untrusted.

    `quote` as the device gives it, `event_log` the CCEL area, `collateral` the JSON that
    `Collateral.dump` writes.
    """

    quote: bytes
    event_log: bytes
    collateral: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTd:
    """An authentic quote, made for this channel, and its log."""

    quote: Authentic[VerifiedQuote]
    log: EventLog


class TdDevice(Protocol):
    """The part of a TD guest that makes evidence; see `tdx.device`."""

    async def quote(self, report_data: bytes) -> bytes:
        """Get a quote over 64 bytes."""
        ...

    async def event_log(self) -> bytes:
        """Read the CCEL area."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TdAttester:
    """Makes evidence of a TD; `endorse` finds the collateral of a quote's platform."""

    variant: Variant
    device: TdDevice
    endorse: Callable[[Quote], Awaitable[Collateral]]

    async def attest(self, binding: Binding) -> Evidence:
        """Collect evidence that commits to `binding`.

        Raises:
            Unavailable: the device, or Intel's service, did not answer.
        """
        quote = await self.device.quote(binding)
        document = TdEvidence(
            quote=quote,
            event_log=await self.device.event_log(),
            collateral=(await self.endorse(parse_quote(quote))).dump(),
        )
        return Evidence(variant=self.variant, data=decode.dump(document))


def verify_td(
    evidence: Evidence,
    *,
    variant: Variant,
    binding: Binding,
    roots: tuple[bytes, ...],
    now: datetime,
) -> VerifiedTd:
    """Verify steps a to d.

    Raises:
        FormatError: a part does not follow its specification.
        Untrusted: the first check that fails.
    """
    if evidence.variant is not variant:
        raise Untrusted(f"evidence of variant {evidence.variant}, expected {variant}")
    what = f"{variant} evidence"
    document = decode.load(TdEvidence, evidence.data, what=what, max_bytes=_MAX_EVIDENCE_BYTES)
    if decode.dump(document) != evidence.data:
        # one spelling only: what was signed is then all there is
        raise FormatError(f"{what}: not in canonical form")
    verified = verify(
        parse_quote(document.quote),
        collateral=Collateral.parse(document.collateral),
        roots=roots,
        now=now,
    )
    body = verified.claims.quote.body
    if not isinstance(body, TdReport10):
        raise Untrusted("quote: of an SGX enclave, expected a TD")
    if not hmac.compare_digest(body.report_data, binding):
        raise Untrusted(f"quote: report data {body.report_data.hex()}, expected {binding.hex()}")
    registers = {0: body.rtmr0, 1: body.rtmr1, 2: body.rtmr2}
    log = td_log.verify_log(td_log.parse_log(document.event_log), registers=registers)
    return VerifiedTd(quote=verified, log=log.claims)


def appraise_td(
    evidence: Evidence,
    *,
    variant: Variant,
    binding: Binding,
    policy: Policy,
    roots: tuple[bytes, ...],
    now: datetime,
) -> AttestationResult:
    """Verify evidence (`verify_td`), then judge its claims; a finding names the event behind it.

    Raises:
        FormatError, Untrusted: as `verify_td`.
        Rejected: authentic, but outside the policy.
    """
    verified = verify_td(evidence, variant=variant, binding=binding, roots=roots, now=now)
    found = claims(verified.quote)
    return AttestationResult(
        variant=variant,
        attester_id=attester_id(verified.quote),
        claims=found,
        unchecked=td_log.require(policy, found, log=verified.log),
        warnings=(),
    )


def td_policy(
    registers: Mapping[str, Rule],
    *,
    statuses: tuple[TcbStatus, ...],
    minimum_tcb_evaluation: int,
) -> Policy:
    """Give the rules for a TD with these registers; its report data was verified before."""
    rules = dict(
        default_policy(
            registers,
            report_data=b"",
            statuses=statuses,
            minimum_tcb_evaluation=minimum_tcb_evaluation,
        )
    )
    rules["report_data"] = Unchecked("verified to be this channel's binding")
    return rules


def image_rules(reference: Mapping[str, tuple[bytes, ...]]) -> dict[str, Rule]:
    """Give a rule for each of `IMAGE_REGISTERS`; one without reference values accepts nothing.

    Raises:
        FormatError: reference values for another claim, or not of 48 bytes.
    """
    if strange := sorted(reference.keys() - set(IMAGE_REGISTERS)):
        raise FormatError(f"reference values for {strange[0]}: the image does not decide it")
    values = [v for accepted in reference.values() for v in accepted]
    if any(len(v) != rtmr.DIGEST_BYTES for v in values):
        raise FormatError(f"reference values: want {rtmr.DIGEST_BYTES} bytes each (SHA-384)")
    return {name: OneOf(tuple(reference.get(name, ()))) for name in IMAGE_REGISTERS}


def cluster_event(cluster_id: bytes) -> bytes:
    """Give the digest (48 bytes) that giving a TD to a cluster extends RTMR3 with."""
    return hashlib.sha384(cluster_id).digest()


def exactly(*digests: bytes) -> Exactly:
    """Give the rule of a register that was extended with just these digests."""
    return Exactly(rtmr.predict(digests))
