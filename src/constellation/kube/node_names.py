"""What a node is called: its group and an index that no node of the group had before. Pure.

A removed node's kubelet has a certificate for its name until that expires, and to Kubernetes
whoever has it is the node of that name: so a name is given once in a cluster's life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from constellation.kube.node_role import NodeRole

__all__ = ["NamesGiven", "new_name", "node_name", "with_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesGiven:
    """How many names a group has given: no index below `count` is given again."""

    group: str
    count: int


def node_name(role: NodeRole, group: str, index: int) -> str:
    """Name the node: group, with its role in front unless the group's name says it, and index."""
    base = group.replace("_", "-").lower()
    return f"{base if base.startswith(role) else f'{role}-{base}'}-{index}"


def new_name(
    names: tuple[NamesGiven, ...], *, role: NodeRole, group: str, taken: AbstractSet[str]
) -> str:
    """Choose a name that no node of the group has had, and none of `taken`."""
    first = _given(names, group)
    candidates = (node_name(role, group, first + i) for i in range(len(taken) + 1))
    return next(name for name in candidates if name not in taken)


def with_name(
    names: tuple[NamesGiven, ...], name: str, *, role: NodeRole, group: str
) -> tuple[NamesGiven, ...]:
    """Note that `name` is given to a new node.

    Raises:
        FormatError: it is no name of this group, or a node had it before.
    """
    count, text = _given(names, group), name.rpartition("-")[2]
    if not (text.isascii() and text.isdigit()) or name != node_name(role, group, int(text)):
        raise FormatError(f"membership: {name[:80]!r} is no name of a {role} of group {group!r}")
    if int(text) < count:
        raise FormatError(f"membership: {name} was given before, want index {count} or above")
    others = (n for n in names if n.group != group)
    return (*others, NamesGiven(group=group, count=int(text) + 1))


def _given(names: tuple[NamesGiven, ...], group: str) -> int:
    return next((n.count for n in names if n.group == group), 0)
