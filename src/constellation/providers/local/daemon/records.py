"""What the daemon remembers of its cloud, and the rules that give a new node its numbers (pure).

Written after every change, read by a restarted daemon. Addresses and ports: seams.md, "Ports".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from constellation.base.errors import Conflict, UserError
from constellation.providers.protocols import Group, Role

__all__ = [
    "CloudRecord",
    "NodeRecord",
    "Process",
    "missing",
    "surplus",
    "with_node",
    "without_node",
]

_FIRST_PORT = 20000
_PORTS_A_NODE = 10
_FIRST_NUMBER, _LAST_NUMBER = 10, 250
_LAST_INDEX = 1000  # 20000 + 10 * 1000 stays below the NodePorts at 30100
_SUBNET = {Role.CONTROL_PLANE: "10.42.1", Role.WORKER: "10.42.2"}
_GROUP = re.compile(r"[a-z0-9]([a-z0-9_-]{0,28}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process for ever: pid and start time (clock ticks since boot); zeros: none."""

    pid: int = 0
    started: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One node; `index` is never used again in this cloud, nor is its id."""

    instance_id: str
    index: int
    group: str
    role: Role
    address: str
    wanted_on: bool = True
    manufactured: bool = False
    image_path: str = ""
    image_digest: str = ""
    keeper: Process = Process()
    init: Process = Process()
    swtpm: Process = Process()

    @property
    def init_port(self) -> int:
        """Port of the cloud's address that leads to this node's 9000."""
        return _FIRST_PORT + _PORTS_A_NODE * self.index

    @property
    def recovery_port(self) -> int:
        """Port that leads to 9999."""
        return self.init_port + 1

    @property
    def verify_port(self) -> int:
        """Port that leads to 30081."""
        return self.init_port + 2

    @property
    def policy_port(self) -> int:
        """Port that leads to 30091."""
        return self.init_port + 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudRecord:
    """The whole cloud.

    `scaled`: control planes have created or deleted a machine; from then on they alone decide how
    many there are, since they know which one is drained, and which is a member of etcd.
    """

    id: str
    address: str
    next_index: int = 0
    image_path: str = ""
    node_document: bytes = b""
    artifacts_path: str = ""
    disk_bytes: int = 0
    offline: bool = False
    groups: tuple[Group, ...] = ()
    scaled: bool = False
    api_ca: bytes = b""
    haproxy: Process = Process()
    nodes: tuple[NodeRecord, ...] = ()

    def node(self, instance_id: str) -> NodeRecord:
        """Find a node. Raises Conflict."""
        for node in self.nodes:
            if node.instance_id == instance_id:
                return node
        raise Conflict(f"there is no instance {instance_id[:60]!r} in {self.id}")

    def put(self, node: NodeRecord) -> CloudRecord:
        """Replace the node of that id."""
        nodes = (node if n.instance_id == node.instance_id else n for n in self.nodes)
        return replace(self, nodes=tuple(nodes))


def missing(cloud: CloudRecord, groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """Say how many nodes each group lacks (`size` = that number); checks names and roles.

    Where control planes scale, only a group that the cloud has not had before may lack any.

    Raises:
        UserError: a group's name cannot be used, or it changed its role.
    """
    lacking = []
    for group in groups:
        if not _GROUP.fullmatch(group.name):
            raise UserError(
                f"{group.name[:40]!r} cannot name a node group",
                hint="1 to 30 of a-z, 0-9, '_', '-'",
            )
        present = [n for n in cloud.nodes if n.group == group.name]
        if any(n.role != group.role for n in present):
            raise UserError(f"group {group.name} has another role already")
        if len(present) < group.size:
            lacking.append(replace(group, size=group.size - len(present)))
    if cloud.scaled:
        known = {group.name for group in cloud.groups}
        lacking = [group for group in lacking if group.name not in known]
    return tuple(lacking)


def surplus(cloud: CloudRecord, groups: tuple[Group, ...]) -> tuple[NodeRecord, ...]:
    """List the nodes beyond their group's size, newest first; unknown groups have size 0.

    Nothing is beyond it where control planes scale: the newest may be what replaces the others.
    """
    if cloud.scaled:
        return ()
    sizes = {group.name: group.size for group in groups}
    kept: dict[str, int] = {}
    extra = []
    for node in sorted(cloud.nodes, key=lambda n: n.index):
        kept[node.group] = kept.get(node.group, 0) + 1
        if kept[node.group] > sizes.get(node.group, 0):
            extra.append(node)
    return tuple(reversed(extra))


def with_node(cloud: CloudRecord, group: Group) -> tuple[CloudRecord, NodeRecord]:
    """Add one node to a group, with an index, id, address and ports of its own.

    Raises:
        Conflict: no index or address is left.
    """
    index = cloud.next_index
    if index >= _LAST_INDEX:
        raise Conflict(f"cloud {cloud.id} has made {_LAST_INDEX} nodes; no port is left")
    used = {n.address for n in cloud.nodes}
    span = _LAST_NUMBER - _FIRST_NUMBER + 1
    for step in range(span):
        # goes on from the index, so that an address rests as long as possible after its node went
        address = f"{_SUBNET[group.role]}.{_FIRST_NUMBER + (index + step) % span}"
        if address not in used:
            break
    else:
        raise Conflict(f"cloud {cloud.id} has no address left for a {group.role}")
    node = NodeRecord(
        instance_id=f"{cloud.id}-{group.name.replace('_', '-')}-{index}",
        index=index,
        group=group.name,
        role=group.role,
        address=address,
    )
    return replace(cloud, next_index=index + 1, nodes=(*cloud.nodes, node)), node


def without_node(cloud: CloudRecord, instance_id: str) -> CloudRecord:
    """Forget a node; one that is not there is no error."""
    return replace(cloud, nodes=tuple(n for n in cloud.nodes if n.instance_id != instance_id))
