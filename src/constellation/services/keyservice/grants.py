"""Whether a joining control plane gets master secret and join key: functions of values. Pure.

The grant is the join log's own record of the reservation: signed with the join key, about one AK,
written by one control plane. It is good there alone, once, and while that reservation lives: not
after its time, nor after the node has settled, or was removed or got another ticket. Its time is
counted in seconds since boot from the moment at which this KeyService saw it stand in its copy of
the log: the wall clock is the data centre's, and has no say. Every finding is reported.
Source: design, sections 6 and 9; ADR 45, 97.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Rejected
from constellation.kube.join_log import Kind
from constellation.kube.membership import NodeRole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.kube.join_log import Record
    from constellation.kube.membership import Member, Membership

__all__ = ["Grants", "judge_grant", "look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What one run of KeyService knows of the reservations that stand, by sequence number.

    `since`: seconds since boot at which it first saw one, None if that stood there when it began.
    `used`: were redeemed in this run.
    """

    since: Mapping[int, float | None]
    used: frozenset[int]


def look(before: Grants | None, membership: Membership, *, now_s: float) -> Grants:
    """Note what stands in the log now; `before` None: this is the run's first look.

    The log only grows: a number that does not stand in it any more never does again, so that
    nothing needs to be remembered of it. `now_s` is in seconds since boot.
    """
    standing = {r.member.joined for r in membership.reservations}
    if before is None:
        return Grants(since=dict.fromkeys(standing), used=frozenset())
    return Grants(
        since={number: before.since.get(number, now_s) for number in standing},
        used=before.used & standing,
    )


def judge_grant(
    record: Record,
    *,
    attester_id: bytes,
    own_name: str,
    membership: Membership,
    grants: Grants,
    now_s: float,
) -> Member:
    """Give the member whom the grant lets have the secrets.

    Args:
        record: verified: the join key signed it (`join_log.verify_record`).
        attester_id: of the peer's appraised evidence, 32 bytes.
        own_name: of the control plane that is asked.
        membership: as this control plane's copy of the log has it now.
        grants: of this run, after a look at `membership`.
        now_s: seconds since boot.

    Raises:
        Rejected: with every finding.
    """
    where = f"grant {record.sequence}"
    member = record.entry.member
    if record.entry.kind is not Kind.RESERVED or member is None:
        raise Rejected((f"{where}: found a record {record.entry.kind}, expected a reservation",))
    found = []
    if member.role is not NodeRole.CONTROL_PLANE:
        found.append(f"{where}: {member.name} is a {member.role}, expected a control plane")
    if member.attester_id != attester_id:
        found.append(
            f"{where}: found AK {attester_id.hex()}, expected {member.attester_id.hex()} "
            f"of {member.name}"
        )
    if record.writer != own_name:
        found.append(f"{where}: {record.writer} gave it, expected to be asked there")
    since, good_for_s = (
        grants.since.get(record.sequence),
        record.entry.expires_at - record.entry.time,
    )
    if not any(r.member == member for r in membership.reservations):
        found.append(f"{where}: the lease of {member.name} has ended, expected a new ticket")
    elif since is None:
        found.append(f"{where}: was given before this KeyService started, expected a new ticket")
    elif now_s - since >= good_for_s:
        found.append(f"{where}: the lease of {member.name} has ended, expected a new ticket")
    if record.sequence in grants.used:
        found.append(f"{where}: was used before, expected a new ticket")
    if found:
        raise Rejected(tuple(found))
    return member
