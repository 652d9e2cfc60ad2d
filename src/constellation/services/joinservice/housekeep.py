"""What time and observation change in the membership: settled, lapsed, removed, forgotten. Pure.

Kubernetes and the provider are observed, not trusted: what they say can end a reservation or free
a name, never give one. A node is removed only after both have not known it for a while, or at once
if it was marked as leaving when it was seen last: the operator drained it and deleted it. A control
plane has its place when it is Ready and its etcd member votes: then the next one may come. All
durations are counted on a steady clock: by another machine's clock no ticket ends early (ADR 97).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.kube.join_log import Entry, Kind
from constellation.kube.membership import NodeRole, lease, member_by_name
from constellation.services.joinservice.admit import RESERVATION_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.kube.etcd import EtcdMember
    from constellation.kube.membership import Member, Membership

__all__ = [
    "GONE_AFTER_S",
    "Observed",
    "gone_since",
    "next_entry",
    "seen_leaving",
    "stale_learner",
    "standing_since",
    "still_due",
]

GONE_AFTER_S = 60.0
"""Seconds for which neither Kubernetes nor the provider may know a node before it is removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One look: names of Kubernetes' nodes, those that are Ready, listed instances, etcd.

    `leaving`: names of nodes with the taint that the operator gives to those that it removes.
    """

    nodes: frozenset[str]
    ready: frozenset[str]
    instances: frozenset[str]
    etcd: tuple[EtcdMember, ...]
    leaving: frozenset[str] = frozenset()


def gone_since(
    before: Mapping[str, float], membership: Membership, observed: Observed, *, now_s: float
) -> dict[str, float]:
    """Say since when (seconds of a steady clock) each absent node has been absent."""
    reserved = (r.member for r in membership.reservations)
    everybody = (*membership.nodes, *reserved, *membership.retired)
    return {m.name: before.get(m.name, now_s) for m in everybody if _absent(m, observed)}


def standing_since(
    before: Mapping[int, float], membership: Membership, *, now_s: float
) -> dict[int, float]:
    """Say since when (seconds of a steady clock) this JoinService sees each reservation stand.

    By the sequence number of its record: the same node asking again gets its time anew.
    """
    standing = (r.member.joined for r in membership.reservations)
    return {number: before.get(number, now_s) for number in standing}


def seen_leaving(before: frozenset[str], observed: Observed) -> frozenset[str]:
    """Remember who was leaving when it was seen last; who stays after all is no more among them."""
    return (before - observed.nodes) | observed.leaving


def next_entry(
    membership: Membership,
    observed: Observed,
    *,
    gone: Mapping[str, float],
    standing: Mapping[int, float],
    leaving: frozenset[str],
    now: int,
    now_s: float,
) -> Entry | None:
    """Give the next thing that has to be recorded, None if nothing has.

    `now` (seconds since 1970) dates it and decides nothing; `now_s` is of the steady clock that
    `gone` and `standing` have; `leaving` from `seen_leaving`.
    """
    for reservation in membership.reservations:
        name = reservation.member.name
        if _has_its_place(reservation.member, observed):
            return Entry(kind=Kind.SETTLED, time=now, name=name)
        since = gone.get(name)
        vanished = since is not None and now_s - since >= GONE_AFTER_S
        stood = standing.get(reservation.member.joined, now_s)
        if vanished or now_s - stood >= RESERVATION_S:
            return Entry(kind=Kind.LAPSED, time=now, name=name)
    for members, kind in ((membership.nodes, Kind.REMOVED), (membership.retired, Kind.FORGOTTEN)):
        for member in members:
            since = gone.get(member.name)
            left = kind is Kind.REMOVED and member.name in leaving
            if since is not None and (left or now_s - since >= GONE_AFTER_S):
                return Entry(kind=kind, time=now, name=member.name)
    return None


def stale_learner(membership: Membership, observed: Observed) -> EtcdMember | None:
    """Find an etcd learner whose control plane has no lease: it would keep the next one out."""
    holder = lease(membership)
    joining = holder.member.address if holder is not None else ""
    return next((m for m in observed.etcd if m.learner and m.address != joining), None)


def still_due(
    membership: Membership, entry: Entry, *, standing: Mapping[int, float]
) -> Entry | None:
    """Drop an entry that another JoinService has recorded meanwhile, or that a new ticket undid.

    `standing` as the entry was decided by: a node that asked again has a reservation that is not in
    it, and has its time anew.
    """
    placed = member_by_name(membership, entry.name)
    own = next((r.member for r in membership.reservations if r.member.name == entry.name), None)
    reserved = own is not None
    retired = any(m.name == entry.name for m in membership.retired)
    match entry.kind:
        case Kind.SETTLED:
            return entry if reserved else None
        case Kind.LAPSED:
            return entry if own is not None and own.joined in standing else None
        case Kind.REMOVED:
            return entry if placed is not None and not reserved else None
        case _:
            return entry if retired else None


def _has_its_place(member: Member, observed: Observed) -> bool:
    votes = {m.address for m in observed.etcd if not m.learner}
    return member.name in observed.ready and (
        member.role is not NodeRole.CONTROL_PLANE or member.address in votes
    )


def _absent(member: Member, observed: Observed) -> bool:
    return member.name not in observed.nodes and member.instance_id not in observed.instances
