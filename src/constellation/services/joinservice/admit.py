"""Whether a node may join or come back, and as what: a function of values, nothing else.

What it stands on: the node's evidence was appraised by the cluster policy (the caller has the
`AttestationResult`), so its software is ours. What the provider lists is a claim: it can make a
request implausible, never plausible enough to give more than the group's role (design, 2 and 10).
Every finding is reported, not only the first.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.node_rules import findings_on_life
from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.crypto.signing import load_public_key
from constellation.kube import membership as members
from constellation.kube.membership import GroupSlots, Member, Membership, NodeRole
from constellation.kube.placement import allocate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import AttestationResult
    from constellation.providers.protocols import Instance

__all__ = [
    "RESERVATION_S",
    "Admission",
    "JoinFacts",
    "LeaseTaken",
    "RejoinFacts",
    "Returning",
    "admit",
    "admit_again",
    "with_slots",
]

RESERVATION_S = 300
"""Seconds until an unused ticket's place lapses (design, section 10)."""

_DISK_UUID_BYTES = 16
_MESH_KEY_BYTES = 32


class LeaseTaken(Unavailable):
    """Another control plane is joining: this one may, as soon as that has its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinFacts:
    """What a node said inside its attested channel; fields as in `join.proto` JoinRequest."""

    instance_id: str
    role: str
    address: str
    disk_uuid: bytes
    kubelet_client_public_key: bytes
    kubelet_serving_public_key: bytes
    service_public_key: bytes
    mesh_public_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RejoinFacts:
    """What a rebooted node said; fields as in `join.proto` RejoinRequest."""

    instance_id: str
    disk_uuid: bytes
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A place for one node: reserved for it until `expires_at` (seconds since 1970, UTC).

    `repeated`: the node had this place already, and asked again.
    """

    member: Member
    expires_at: int
    repeated: bool

    @property
    def kubelet_name(self) -> str:
        """Common name of both kubelet certificates (Kubernetes, "Using Node Authorization")."""
        return f"system:node:{self.member.name}"

    @property
    def serving_addresses(self) -> tuple[str, ...]:
        """IP addresses in the kubelet's serving certificate."""
        return (self.member.address,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """A node of the cluster after its reboot. `unsettled`: it still had only a reservation."""

    member: Member
    unsettled: bool


def admit(
    membership: Membership,
    facts: JoinFacts,
    *,
    result: AttestationResult,
    document: bytes,
    instances: tuple[Instance, ...],
    now: int,
) -> Admission:
    """Give a node its place in the cluster, or say everything that speaks against it.

    Args:
        membership: of this moment; the reservation must be recorded as its very next record.
        facts: what the node said.
        result: its appraised evidence, by the policy that demands PCR 15 zero.
        document: this cluster's node document, which the policy demanded as well.
        instances: the provider's list.
        now: seconds since 1970, UTC; dates the place, and decides nothing.

    Raises:
        Rejected: with every finding.
        LeaseTaken: nothing speaks against it, but another control plane is joining right now.
        Conflict: no addresses are left.
    """
    found = [*findings_on_life(result, document=document, given=False), *_shape(facts)]
    instance, implausible = _listed(facts.instance_id, facts.address, instances)
    found += implausible
    group = None
    if instance is not None:
        group, unfit = _group(membership, instance, asked=facts.role)
        found += unfit
    before = _earlier(membership, result.attester_id)
    if group is not None:
        found += _no_slot(membership, group, before=before)
        if before is not None and before.group != group.name:
            found.append(f"AK of {before.name}: found group {group.name}, expected {before.group}")
    found += _taken(membership, facts, attester_id=result.attester_id, before=before)
    found += _no_place_for(membership, facts.address, role=group.role if group else None)
    if found or group is None:
        raise Rejected(tuple(found))
    _wait_for_lease(membership, group, attester_id=result.attester_id)
    return _place(membership, facts, group, result=result, before=before, now=now)


def admit_again(
    membership: Membership,
    facts: RejoinFacts,
    *,
    result: AttestationResult,
    document: bytes,
    instances: tuple[Instance, ...] | None,
) -> Returning:
    """Let a known node open its disk again, or say everything that speaks against it.

    `instances` is None where the provider does not answer: then the record alone decides, which is
    what trust rests on in any case.

    Raises:
        Rejected: with every finding.
    """
    found = list(findings_on_life(result, document=document, given=False))
    live = next((m for m in membership.nodes if m.attester_id == result.attester_id), None)
    reserved = next(
        (r.member for r in membership.reservations if r.member.attester_id == result.attester_id),
        None,
    )
    member = live or reserved
    if member is None:
        who = "was removed from" if _was_removed(membership, result) else "never joined"
        raise Rejected((*found, f"AK {result.attester_id.hex()} {who} this cluster"))
    if facts.disk_uuid != member.disk_uuid:
        found.append(
            f"state disk: found {facts.disk_uuid.hex()}, expected {member.disk_uuid.hex()} "
            f"of {member.name}"
        )
    if facts.instance_id != member.instance_id:
        found.append(
            f"instance id: found {facts.instance_id[:80]!r}, expected {member.instance_id!r}"
        )
    if facts.address != member.address:
        found.append(f"address: found {facts.address[:80]!r}, expected {member.address}")
    if instances is not None:
        found += _listed(facts.instance_id, facts.address, instances)[1]
    if found:
        raise Rejected(tuple(found))
    return Returning(member=member, unsettled=live is None)


def with_slots(membership: Membership, slots: Mapping[str, int]) -> Membership:
    """Give the same with other sizes of groups, where the owner's signed policy names them."""
    groups = tuple(
        dataclasses.replace(g, size=slots.get(g.name, g.size)) for g in membership.settings.groups
    )
    settings = dataclasses.replace(membership.settings, groups=groups)
    return dataclasses.replace(membership, settings=settings)


def _shape(facts: JoinFacts) -> tuple[str, ...]:
    found = []
    if len(facts.disk_uuid) != _DISK_UUID_BYTES or not any(facts.disk_uuid):
        found.append(f"state disk's uuid: {len(facts.disk_uuid)} bytes, expected 16, not all zero")
    if len(facts.mesh_public_key) != _MESH_KEY_BYTES or not any(facts.mesh_public_key):
        found.append(f"mesh key: {len(facts.mesh_public_key)} bytes, expected 32, not all zero")
    keys = {
        "kubelet's client key": facts.kubelet_client_public_key,
        "kubelet's serving key": facts.kubelet_serving_public_key,
        "service key": facts.service_public_key,
    }
    for name, key in keys.items():
        try:
            load_public_key(key)
        except FormatError as error:
            found.append(f"{name}: {error}")
    if len(set(keys.values())) != len(keys):
        found.append("two of the three certificate keys are the same, expected three keys")
    return tuple(found)


def _listed(
    instance_id: str, address: str, instances: tuple[Instance, ...]
) -> tuple[Instance | None, tuple[str, ...]]:
    """Find the instance in the provider's list, and say where the list disagrees."""
    same = [i for i in instances if i.instance_id == instance_id]
    if len(same) != 1:
        return None, (
            f"instance id {instance_id[:80]!r}: the provider lists {len(same)} of it, expected 1",
        )
    (instance,) = same
    if instance.address != address:
        return instance, (
            f"address: found {address[:80]!r}, expected {instance.address!r} as the provider lists",
        )
    return instance, ()


def _group(
    membership: Membership, instance: Instance, *, asked: str
) -> tuple[GroupSlots | None, tuple[str, ...]]:
    group = next((g for g in membership.settings.groups if g.name == instance.group), None)
    if group is None:
        return None, (f"group {instance.group[:80]!r}: this cluster has no such group",)
    found = [
        f"role: {who} says {role[:40]!r}, expected {group.role} of group {group.name}"
        for who, role in (("the node", asked), ("the provider", str(instance.role)))
        if role != group.role
    ]
    return group, tuple(found)


def _earlier(membership: Membership, attester_id: bytes) -> Member | None:
    """Find the place that this AK has or had: it gets the same again."""
    return next((m for m in members.everyone(membership) if m.attester_id == attester_id), None)


def _no_slot(
    membership: Membership, group: GroupSlots, *, before: Member | None
) -> tuple[str, ...]:
    others = members.occupied(membership, group.name)
    if before is not None and _holds_slot(membership, before):
        others -= 1
    if others < group.size:
        return ()
    return (f"group {group.name}: {others} of {group.size} slots are taken, expected a free one",)


def _holds_slot(membership: Membership, member: Member) -> bool:
    return member in membership.nodes or any(r.member == member for r in membership.reservations)


def _taken(
    membership: Membership, facts: JoinFacts, *, attester_id: bytes, before: Member | None
) -> tuple[str, ...]:
    found = []
    for other in members.everyone(membership):
        if other.attester_id == attester_id:
            continue
        found += [
            f"{what}: {other.name} has the same, expected one of its own"
            for what, its, asked in (
                ("instance id", other.instance_id, facts.instance_id),
                ("address", other.address, facts.address),
                ("state disk's uuid", other.disk_uuid, facts.disk_uuid),
                ("mesh key", other.mesh_public_key, facts.mesh_public_key),
                ("service key", other.service_public_key, facts.service_public_key),
            )
            if its == asked
        ]
    if before is not None and before in membership.nodes:
        if before.role is NodeRole.CONTROL_PLANE:
            found.append(
                f"{before.name} is a live control plane: expected its removal before it joins anew"
            )
        elif before.instance_id != facts.instance_id:
            found.append(f"AK of {before.name}: expected instance id {before.instance_id!r}")
    if before is not None and before.disk_uuid in membership.fenced_disks:
        found.append(f"{before.name} was removed and is not forgotten yet: expected to wait")
    elif facts.disk_uuid in membership.fenced_disks:
        found.append("state disk belonged to a removed node: expected a new disk")
    return tuple(found)


def _no_place_for(
    membership: Membership, address: str, *, role: NodeRole | None
) -> tuple[str, ...]:
    """Say why no node of this role may have a certificate for this address.

    Both come from metadata. A worker's certificate for the API server's address would let whoever
    has its key be the API server to kubectl and to every kubelet.
    """
    settings = membership.settings
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return (f"address: {address[:80]!r} is no IPv4 address",)
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        return (f"address: {address} is nobody's own, expected a node's own address",)
    endpoints = (settings.endpoint, settings.user_endpoint)
    api = {*settings.api_sans, *(endpoint.rpartition(":")[0] for endpoint in endpoints)}
    if role is not NodeRole.CONTROL_PLANE and address in api:
        return (f"address: {address} is the API server's, expected a node's own address",)
    return tuple(
        f"address: {address} lies in {cidr}, expected a node's own network"
        for cidr in (settings.pod_cidr, settings.mesh_cidr, settings.service_cidr)
        if parsed in ipaddress.IPv4Network(cidr)
    )


def _wait_for_lease(membership: Membership, group: GroupSlots, *, attester_id: bytes) -> None:
    if group.role is not NodeRole.CONTROL_PLANE:
        return
    holder = members.lease(membership)
    if holder is not None and holder.member.attester_id != attester_id:
        raise LeaseTaken(
            f"{holder.member.name} is joining as a control plane; one joins at a time",
            hint=f"its lease ends {RESERVATION_S} s after its ticket at the latest",
        )


def _place(
    membership: Membership,
    facts: JoinFacts,
    group: GroupSlots,
    *,
    result: AttestationResult,
    before: Member | None,
    now: int,
) -> Admission:
    if before is not None:
        name, mesh, pods = before.name, before.mesh_address, before.pod_cidr
    else:
        free = allocate(membership, group=group)
        name, mesh, pods = free.name, free.mesh_address, free.pod_cidr
    member = Member(
        name=name,
        instance_id=facts.instance_id,
        role=group.role,
        group=group.name,
        attester_id=result.attester_id,
        address=facts.address,
        mesh_address=mesh,
        pod_cidr=pods,
        disk_uuid=facts.disk_uuid,
        kubelet_client_public_key=facts.kubelet_client_public_key,
        kubelet_serving_public_key=facts.kubelet_serving_public_key,
        service_public_key=facts.service_public_key,
        mesh_public_key=facts.mesh_public_key,
        joined=membership.sequence + 1,
    )
    return Admission(member=member, expires_at=now + RESERVATION_S, repeated=before is not None)


def _was_removed(membership: Membership, result: AttestationResult) -> bool:
    return any(m.attester_id == result.attester_id for m in membership.retired)
