"""Whether a joining control plane gets master secret and join key: a function of values. Pure.

The grant is the join log's own record of the reservation: signed with the join key, about one AK,
written by one control plane. It is good there alone, once, and while that reservation lives: not
after its time, nor after the node has settled, or was removed or got another ticket. Every finding
is reported. Source: design, sections 6 and 9; ADR 45.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Rejected
from constellation.kube.join_log import Kind
from constellation.kube.membership import NodeRole

if TYPE_CHECKING:
    from collections.abc import Collection

    from constellation.kube.join_log import Record
    from constellation.kube.membership import Member, Membership

__all__ = ["judge_grant"]


def judge_grant(
    record: Record,
    *,
    attester_id: bytes,
    own_name: str,
    membership: Membership,
    used: Collection[int],
    now: int,
) -> Member:
    """Give the member whom the grant lets have the secrets.

    Args:
        record: verified: the join key signed it (`join_log.verify_record`).
        attester_id: of the peer's appraised evidence, 32 bytes.
        own_name: of the control plane that is asked.
        membership: as this control plane's copy of the log has it now.
        used: sequence numbers of grants that were redeemed here.
        now: seconds since 1970, UTC.

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
    lives = any(r.member == member for r in membership.reservations)
    if not lives or now >= record.entry.expires_at:
        found.append(f"{where}: the lease of {member.name} has ended, expected a new ticket")
    if record.sequence in used:
        found.append(f"{where}: was used before, expected a new ticket")
    if found:
        raise Rejected(tuple(found))
    return member
