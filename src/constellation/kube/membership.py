"""Who belongs to a cluster, under which name and addresses: what admission decides from.

A `Membership` is the fold of the join log up to `sequence` (`join_log.advance`). Addresses and pod
CIDRs stay taken until neither Kubernetes nor the provider knows a retired member, names for ever.
Pure.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError
from constellation.kube import node_names
from constellation.kube.node_names import NamesGiven  # noqa: TC001 - decode reads the hints
from constellation.kube.node_role import NodeRole

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "POD_BLOCK_BITS",
    "GroupSlots",
    "Member",
    "Membership",
    "NodeRole",
    "Reservation",
    "Settings",
    "check",
    "everyone",
    "forget",
    "found",
    "lapse",
    "lease",
    "load_membership",
    "member_by_name",
    "occupied",
    "remove",
    "reserve",
    "settle",
]

_MAX_MEMBERSHIP_BYTES = 4 * 1024 * 1024
POD_BLOCK_BITS = 24
"""Prefix length of one node's pod CIDR: 256 addresses, of which host-local gives 253."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSlots:
    """A node group: at most `size` nodes of one role may hold a slot in it."""

    name: str
    role: NodeRole
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is the same for every node of a cluster; from the plan that `init` sends.

    `cluster_id` has 32 bytes; endpoints are host:port; `artifact_list` is canonical JSON (see
    `trust`); the three CIDRs do not overlap.
    """

    name: str
    cluster_id: bytes
    endpoint: str
    user_endpoint: str
    api_sans: tuple[str, ...]
    service_cidr: str
    pod_cidr: str
    mesh_cidr: str
    kubernetes_version: str
    artifact_list: bytes
    groups: tuple[GroupSlots, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node and everything that must not be given to another one.

    `attester_id`: SHA-256 of its AK, 32 bytes. `disk_uuid`: 16 bytes. Public keys: DER
    SubjectPublicKeyInfo (P-256), but `mesh_public_key`: X25519, 32 bytes. `pod_cidr` is a /24.
    `joined` is the sequence number of the record that gave it its place; 0 for the first node.
    `image`: SHA-256 of the node image that its evidence showed last; empty for the first node until
    it comes back for the first time: who appraised it was its owner.
    """

    name: str
    instance_id: str
    role: NodeRole
    group: str
    attester_id: bytes
    address: str
    mesh_address: str
    pod_cidr: str
    disk_uuid: bytes
    kubelet_client_public_key: bytes
    kubelet_serving_public_key: bytes
    service_public_key: bytes
    mesh_public_key: bytes
    joined: int
    image: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A place that a ticket was given for, until the log says that it settled or lapsed.

    `expires_at` (seconds since 1970, UTC) is when whoever gave it expects that at the latest; it
    decides nothing: clocks differ (ADR 97). A control plane's reservation is its lease.
    """

    member: Member
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Everybody who belongs to a cluster after the record `sequence`, whose digest is `head`.

    `head` has 32 bytes (zeros before the first record). `peers_serial` is the sequence number of
    the last record that changed who talks to whom in the mesh. `fenced_disks` are the uuids (16
    bytes) of state disks whose key is never given again. `names_given`: names that nobody gets
    again; a log of before there was such a list has it from its next reservation on.
    """

    settings: Settings
    sequence: int
    head: bytes
    peers_serial: int
    nodes: tuple[Member, ...]
    reservations: tuple[Reservation, ...]
    retired: tuple[Member, ...]
    fenced_disks: tuple[bytes, ...]
    names_given: tuple[NamesGiven, ...] = ()


def load_membership(data: bytes, *, what: str) -> Membership:
    """Read canonical JSON (`base.decode.dump` writes it), 4 MiB at most.

    Raises:
        FormatError: not a membership, or one in which two nodes share what must be their own.
    """
    membership = decode.load(Membership, data, what=what, max_bytes=_MAX_MEMBERSHIP_BYTES)
    check(membership)
    return membership


def found(settings: Settings, first: Member) -> Membership:
    """Give the membership before the first record: one control plane, which ran init.

    Its name and addresses come from `placement.place_first`; FormatError if no node of this cluster
    has such.
    """
    membership = Membership(
        settings=settings,
        sequence=0,
        head=bytes(32),
        peers_serial=0,
        nodes=(first,),
        reservations=(),
        retired=(),
        fenced_disks=(),
        names_given=node_names.with_name((), first.name, role=first.role, group=first.group),
    )
    check(membership)
    return membership


def everyone(membership: Membership) -> Iterator[Member]:
    """Give live, reserved and retired members: all whose names and addresses are taken."""
    yield from membership.nodes
    yield from (r.member for r in membership.reservations)
    yield from membership.retired


def member_by_name(membership: Membership, name: str) -> Member | None:
    """Find a live or reserved member."""
    placed = (*membership.nodes, *(r.member for r in membership.reservations))
    return next((m for m in placed if m.name == name), None)


def occupied(membership: Membership, group: str) -> int:
    """Count the slots of `group` that are taken: live nodes, and reservations."""
    live = sum(m.group == group for m in membership.nodes)
    return live + sum(r.member.group == group for r in membership.reservations)


def lease(membership: Membership) -> Reservation | None:
    """Give the control plane that is joining right now, if one is."""
    held = (r for r in membership.reservations if r.member.role is NodeRole.CONTROL_PLANE)
    return next(held, None)


def reserve(membership: Membership, member: Member, *, expires_at: int) -> Membership:
    """Give `member` a place until `expires_at`; the same node again replaces its old entry.

    Raises:
        FormatError: it has something that another member has, or a name of one that is forgotten.
    """
    same = {member.name}
    names = membership.names_given
    if all(m.name != member.name for m in everyone(membership)):
        names = node_names.with_name(names, member.name, role=member.role, group=member.group)
    return _checked(
        dataclasses.replace(membership, names_given=names),
        nodes=_without(membership.nodes, same),
        reservations=(
            *_unreserved(membership, same),
            Reservation(member=member, expires_at=expires_at),
        ),
        retired=_without(membership.retired, same),
    )


def settle(membership: Membership, name: str) -> Membership:
    """Make a reserved node a live one.

    Raises:
        FormatError: no reservation has this name.
    """
    member = next((r.member for r in membership.reservations if r.member.name == name), None)
    if member is None:
        raise FormatError(f"membership: {name!r} has no reservation to settle")
    return _checked(
        membership,
        nodes=(*membership.nodes, member),
        reservations=_unreserved(membership, {name}),
    )


def lapse(membership: Membership, name: str) -> Membership:
    """Take an unused reservation back; its addresses stay taken until `forget`.

    Raises:
        FormatError: no reservation has this name.
    """
    member = next((r.member for r in membership.reservations if r.member.name == name), None)
    if member is None:
        raise FormatError(f"membership: {name!r} has no reservation to lapse")
    return _checked(
        membership,
        reservations=_unreserved(membership, {name}),
        retired=(*membership.retired, member),
    )


def remove(membership: Membership, name: str) -> Membership:
    """End a live node's membership; its disk key is never given again, its addresses stay taken.

    Raises:
        FormatError: no live node has this name.
    """
    member = next((m for m in membership.nodes if m.name == name), None)
    if member is None:
        raise FormatError(f"membership: {name!r} is no live node to remove")
    return _checked(
        membership,
        nodes=_without(membership.nodes, {name}),
        retired=(*membership.retired, member),
        fence=member.disk_uuid,
    )


def forget(membership: Membership, name: str) -> Membership:
    """Free a retired member's addresses; its disk stays fenced, nobody gets its name.

    Raises:
        FormatError: no retired member has this name.
    """
    member = next((m for m in membership.retired if m.name == name), None)
    if member is None:
        raise FormatError(f"membership: {name!r} is not retired")
    return _checked(
        membership, retired=_without(membership.retired, {name}), fence=member.disk_uuid
    )


def check(membership: Membership) -> None:
    """Check that no two members share what must be their own, and that all of it is in range.

    Raises:
        FormatError: says which value two members have, or which is out of range.
    """
    members = tuple(everyone(membership))
    for field in ("name", "address", "mesh_address", "pod_cidr", "disk_uuid", "mesh_public_key"):
        values = [getattr(m, field) for m in members]
        for value in values:
            if values.count(value) > 1:
                shown = value.hex() if isinstance(value, bytes) else value
                raise FormatError(f"membership: two members have {field} {shown}")
    groups = {g.name: g for g in membership.settings.groups}
    for m in members:
        group = groups.get(m.group)
        if group is None or group.role is not m.role:
            raise FormatError(f"membership: {m.name} is a {m.role} of group {m.group!r}")
        _in_range(membership.settings, m)
    for m in (*membership.nodes, *(r.member for r in membership.reservations)):
        if m.disk_uuid in membership.fenced_disks:
            raise FormatError(f"membership: the state disk of {m.name} is fenced")


def _in_range(settings: Settings, m: Member) -> None:
    pods, mesh = _network(settings.pod_cidr), _network(settings.mesh_cidr)
    block = _network(m.pod_cidr)
    if not block.subnet_of(pods) or block.prefixlen != POD_BLOCK_BITS:
        raise FormatError(f"membership: {m.name} has pod CIDR {m.pod_cidr}, want /24 of {pods}")
    if _address(m.mesh_address) not in mesh:
        raise FormatError(f"membership: {m.name} has {m.mesh_address}, want one of {mesh}")
    _address(m.address)
    for field, size in (("attester_id", 32), ("disk_uuid", 16), ("mesh_public_key", 32)):
        if len(getattr(m, field)) != size:
            raise FormatError(f"membership: {field} of {m.name} has not {size} bytes")


def _checked(
    membership: Membership,
    *,
    nodes: tuple[Member, ...] | None = None,
    reservations: tuple[Reservation, ...] | None = None,
    retired: tuple[Member, ...] | None = None,
    fence: bytes | None = None,
) -> Membership:
    fenced = membership.fenced_disks
    changed = dataclasses.replace(
        membership,
        nodes=membership.nodes if nodes is None else nodes,
        reservations=membership.reservations if reservations is None else reservations,
        retired=membership.retired if retired is None else retired,
        fenced_disks=fenced if fence is None or fence in fenced else (*fenced, fence),
    )
    check(changed)
    return changed


def _without(members: tuple[Member, ...], names: set[str]) -> tuple[Member, ...]:
    return tuple(m for m in members if m.name not in names)


def _unreserved(membership: Membership, names: set[str]) -> tuple[Reservation, ...]:
    return tuple(r for r in membership.reservations if r.member.name not in names)


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        raise FormatError(f"membership: {text!r} is no IPv4 network") from None


def _address(text: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise FormatError(f"membership: {text!r} is no IPv4 address") from None
