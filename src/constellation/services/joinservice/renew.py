"""Whether a running node gets new certificates, and for what: its live record alone decides.

The channel was attested for `renew-client`: PCR 15 is this cluster's. The node says who it believes
to be; where that differs from the record of its AK, somebody is mistaken or lies, and nothing is
given. Names, addresses and keys in the certificates are the record's. Source: design, section 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls.limits import Rate
from constellation.attestation.node_rules import cluster_claim
from constellation.base.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from constellation.attestation.model import AttestationResult
    from constellation.kube.membership import Member, Membership

__all__ = ["RenewFacts", "RenewRates", "renew"]

_AT_ONCE, _PER_SECOND = 4, 1 / 900


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewFacts:
    """What a running node said inside its attested channel; fields as in `join.proto`."""

    node_name: str
    role: str
    instance_id: str
    address: str


def renew(membership: Membership, facts: RenewFacts, *, result: AttestationResult) -> Member:
    """Give the record that new certificates are made from, or say all that speaks against it.

    The provider is not asked: its list can make a newcomer implausible, and a cloud that leaves a
    member out of it must not let the member's certificates expire.

    Args:
        membership: of this moment; this JoinService's verified copy is enough.
        facts: what the node said.
        result: its appraised evidence, by the policy that demands PCR 15 of this cluster.

    Raises:
        Rejected: with every finding.
    """
    found = list(_given(result))
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


class RenewRates:
    """How often one node gets new certificates: 4 times at once, each quarter of an hour later on.

    A node asks twice a day. Each renewal is a record of the join log.
    """

    def __init__(self) -> None:
        self._rates: dict[bytes, Rate] = {}

    def take(self, member: Member, *, membership: Membership, now_s: float) -> None:
        """Count a renewal; `now_s` of a steady clock.

        Raises:
            Unavailable: that was too often.
        """
        live = {m.attester_id for m in membership.nodes}
        self._rates = {ak: rate for ak, rate in self._rates.items() if ak in live}
        rate = self._rates.setdefault(
            member.attester_id, Rate(burst=_AT_ONCE, per_second=_PER_SECOND, now_s=now_s)
        )
        if not rate.take(1, now_s=now_s):
            raise Unavailable(
                f"{member.name} renewed its certificates too often",
                hint="a node may do so every 15 minutes",
            )


def _given(result: AttestationResult) -> tuple[str, ...]:
    """Ask once more what the appraisal policy asks: this node was given to a cluster."""
    name = cluster_claim(result.variant)
    register = result.claims.get(name)
    if isinstance(register, bytes) and any(register):
        return ()
    shown = "nothing" if register is None else "zero"
    return (f"{name}: found {shown}, expected this cluster's (a node that was given to it)",)


def _why_none(membership: Membership, result: AttestationResult) -> str:
    if any(m.attester_id == result.attester_id for m in membership.retired):
        return "was removed from this cluster"
    if any(r.member.attester_id == result.attester_id for r in membership.reservations):
        return "has not settled yet: its ticket brought certificates"
    return "never joined this cluster"
