"""Which place a new node gets: a name that nobody had, a mesh address, a pod CIDR. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import Conflict
from constellation.kube.membership import POD_BLOCK_BITS, everyone
from constellation.kube.node_names import new_name

if TYPE_CHECKING:
    from constellation.kube.membership import GroupSlots, Member, Membership, Settings
    from constellation.kube.node_names import NamesGiven

__all__ = ["Addresses", "allocate", "place_first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What a new node is called, as no node was before, and where it lives, as no node does now."""

    name: str
    mesh_address: str
    pod_cidr: str


def place_first(settings: Settings, group: GroupSlots) -> Addresses:
    """Choose for the first node, which runs init. Raises as `allocate` does."""
    return _place(settings, (), group=group, names=())


def allocate(membership: Membership, *, group: GroupSlots) -> Addresses:
    """Choose the group's next name, the lowest free mesh address and pod CIDR.

    Raises:
        Conflict: the pod CIDR or the mesh CIDR has no block left.
    """
    taken = tuple(everyone(membership))
    return _place(membership.settings, taken, group=group, names=membership.names_given)


def _place(
    settings: Settings,
    taken: tuple[Member, ...],
    *,
    group: GroupSlots,
    names: tuple[NamesGiven, ...],
) -> Addresses:
    blocks = {m.pod_cidr for m in taken}
    meshes = {m.mesh_address for m in taken}
    pods = ipaddress.IPv4Network(settings.pod_cidr).subnets(new_prefix=POD_BLOCK_BITS)
    block = next((str(b) for b in pods if str(b) not in blocks), None)
    hosts = ipaddress.IPv4Network(settings.mesh_cidr).hosts()
    mesh = next((str(a) for a in hosts if str(a) not in meshes), None)
    if block is None or mesh is None:
        full = settings.pod_cidr if block is None else settings.mesh_cidr
        raise Conflict(f"{full} has no block left for a node", hint="remove nodes of this cluster")
    name = new_name(names, role=group.role, group=group.name, taken={m.name for m in taken})
    return Addresses(name=name, mesh_address=mesh, pod_cidr=block)
