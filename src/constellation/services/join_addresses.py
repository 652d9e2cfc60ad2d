"""Where a JoinService may answer: the other control planes' own addresses, never a load balancer.

The list is the provider's claim; whoever answers there is judged by `join_channel`. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.providers.protocols import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.providers.protocols import Instance

__all__ = ["join_servers"]


def join_servers(peers: Iterable[Instance], *, own_address: str) -> tuple[str, ...]:
    """Give the addresses of all control planes but this node, in the provider's order."""
    return tuple(
        p.address for p in peers if p.role is Role.CONTROL_PLANE and p.address != own_address
    )
