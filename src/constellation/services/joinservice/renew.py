"""Whether a running node gets new certificates, and for what: its live record alone decides.

The channel was attested for `renew-client`: PCR 15 is this cluster's. The node says who it believes
to be; where that differs from the record of its AK, somebody is mistaken or lies, and nothing is
given. Names, addresses and keys in the certificates are the record's. Source: design, section 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls.limits import Rate
from constellation.attestation.node_rules import findings_on_life
from constellation.base.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from constellation.attestation.model import AttestationResult
    from constellation.kube.membership import Member, Membership

__all__ = ["RenewFacts", "Renewals", "renew"]

_AT_ONCE, _PER_SECOND = 4, 1 / 900
_TELL_EVERY_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    claims: dict[str, bytes | int | str]
    policy_serial: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewFacts:
    """What a running node said inside its attested channel; fields as in `join.proto`."""

    node_name: str
    role: str
    instance_id: str
    address: str


def renew(
    membership: Membership, facts: RenewFacts, *, result: AttestationResult, document: bytes
) -> Member:
    """Give the record that new certificates are made from, or say all that speaks against it.

    The provider is not asked: its list can make a newcomer implausible, and a cloud that leaves a
    member out of it must not let the member's certificates expire.

    Args:
        membership: of this moment; this JoinService's verified copy is enough.
        facts: what the node said.
        result: its appraised evidence, by the policy that demands PCR 15 of this cluster.
        document: this cluster's node document, which the policy demanded as well.

    Raises:
        Rejected: with every finding.
    """
    found = list(findings_on_life(result, document=document, given=True))
    member = next((m for m in membership.nodes if m.attester_id == result.attester_id), None)
    if member is None:
        raise Rejected((*found, f"AK {result.attester_id.hex()} {_why_none(membership, result)}"))
    found += [
        f"{what}: found {said[:80]!r}, expected {its!r} of the record of this AK"
        for what, said, its in (
            ("name", facts.node_name, member.name),
            ("role", facts.role, str(member.role)),
            ("instance id", facts.instance_id, member.instance_id),
            ("address", facts.address, member.address),
        )
        if said != its
    ]
    if found:
        raise Rejected(tuple(found))
    return member


class Renewals:
    """What this JoinService remembers of renewals, by AK of live members: how many, what it told.

    A node asks twice a day; it may 4 times at once and each quarter of an hour later on. The join
    log tells of a renewal where the evidence is news, or a week after it last did: the log's size
    is bounded, and records of nodes that merely live on must not push out who joined.
    """

    def __init__(self) -> None:
        self._rates: dict[bytes, Rate] = {}
        self._told: dict[bytes, _Told] = {}

    def take(self, member: Member, *, membership: Membership, now_s: float) -> None:
        """Count a renewal; `now_s` of a steady clock.

        Raises:
            Unavailable: that was too often.
        """
        live = {m.attester_id for m in membership.nodes}
        self._rates = {ak: rate for ak, rate in self._rates.items() if ak in live}
        self._told = {ak: told for ak, told in self._told.items() if ak in live}
        rate = self._rates.setdefault(
            member.attester_id, Rate(burst=_AT_ONCE, per_second=_PER_SECOND, now_s=now_s)
        )
        if not rate.take(1, now_s=now_s):
            raise Unavailable(
                f"{member.name} renewed its certificates too often",
                hint="a node may do so every 15 minutes",
            )

    def is_news(self, result: AttestationResult, *, policy_serial: int, now_s: float) -> bool:
        """Say whether the log is to tell of a renewal with this evidence."""
        told = self._told.get(result.attester_id)
        return (
            told is None
            or now_s - told.at_s >= _TELL_EVERY_S
            or (told.claims, told.policy_serial) != (dict(result.claims), policy_serial)
        )

    def tell(self, result: AttestationResult, *, policy_serial: int, now_s: float) -> None:
        """Remember that the log has told."""
        self._told[result.attester_id] = _Told(
            claims=dict(result.claims), policy_serial=policy_serial, at_s=now_s
        )


def _why_none(membership: Membership, result: AttestationResult) -> str:
    if any(m.attester_id == result.attester_id for m in membership.retired):
        return "was removed from this cluster"
    if any(r.member.attester_id == result.attester_id for r in membership.reservations):
        return "has not settled yet: its ticket brought certificates"
    return "never joined this cluster"
