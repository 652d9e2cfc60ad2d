"""Which nodes and etcd members belong to machines that are gone, and what is removed next. Pure.

A machine is gone once the provider did not list its address in `GONE_AFTER` looks in a row, over at
least `GONE_AFTER_S` seconds of the steady clock. The provider's list is a claim: one that does not
even have the operator's own machine is not believed, and no more than one etcd member is removed
in a round, never one whose removal would leave fewer live members than a quorum of today's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.kube.etcd import EtcdMember

__all__ = [
    "GONE_AFTER",
    "GONE_AFTER_S",
    "Absence",
    "DeleteNode",
    "KubernetesNode",
    "Observed",
    "RemoveMember",
    "plan",
    "watch_absence",
]

GONE_AFTER = 4
GONE_AFTER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesNode:
    """A Node object: its name and internal IP address."""

    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One look: `addresses` are those of all machines that the provider lists."""

    own_address: str
    addresses: frozenset[str]
    nodes: tuple[KubernetesNode, ...]
    members: tuple[EtcdMember, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Since when (seconds of the steady clock) and in how many looks an address was absent."""

    since_s: float
    looks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember:
    """Take this member out of etcd."""

    member: EtcdMember


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteNode:
    """Delete this Node object."""

    node: KubernetesNode


def watch_absence(
    before: Mapping[str, Absence], observed: Observed, *, now_s: float
) -> dict[str, Absence]:
    """Count one more look; an address that is listed again starts anew."""
    if observed.own_address not in observed.addresses:
        return {}
    known = {n.address for n in observed.nodes} | {m.address for m in observed.members}
    return {
        address: Absence(
            since_s=before[address].since_s if address in before else now_s,
            looks=before[address].looks + 1 if address in before else 1,
        )
        for address in known - observed.addresses
    }


def plan(
    observed: Observed, absent: Mapping[str, Absence], *, now_s: float
) -> tuple[RemoveMember | DeleteNode, ...]:
    """Give what is to be done now, in order: an etcd member before the Node of its machine."""
    gone = {
        address
        for address, absence in absent.items()
        if absence.looks >= GONE_AFTER and now_s - absence.since_s >= GONE_AFTER_S
    }
    removable = _removable(observed.members, gone)
    still_in_etcd = {m.address for m in observed.members if m is not removable}
    nodes = (
        DeleteNode(node=n)
        for n in observed.nodes
        if n.address in gone and n.address not in still_in_etcd
    )
    first = () if removable is None else (RemoveMember(member=removable),)
    return (*first, *nodes)


def _removable(members: tuple[EtcdMember, ...], gone: set[str]) -> EtcdMember | None:
    """Choose one dead member: learners first, they have no vote."""
    dead = sorted(
        (m for m in members if m.address in gone), key=lambda m: (not m.learner, m.member_id)
    )
    if not dead:
        return None
    if dead[0].learner:
        return dead[0]
    voters = [m for m in members if not m.learner]
    live = sum(m.address not in gone for m in voters)
    return dead[0] if live >= len(voters) // 2 + 1 else None
