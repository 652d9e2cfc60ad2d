"""Who may ask the attestation agent for what: fixed by the socket, never by the request.

Source: design, section 8 (purposes) and 6 (who is given to a cluster, and when). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from constellation.base.errors import Rejected

__all__ = ["DOORS", "Door", "require_give", "require_purpose", "require_verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One socket: the aTLS purposes it attests for, and whether it may do the other two things.

    `uid`: besides root, the only user who may connect.
    """

    name: str
    purposes: frozenset[str]
    may_verify: bool = False
    may_give: bool = False
    uid: int = 0


DOORS = (
    Door(
        name="bootstrapper",
        purposes=frozenset({"init-server", "join-client", "grant-client"}),
        may_give=True,
    ),
    Door(name="diskmapper", purposes=frozenset({"rejoin-client", "recover-server"}), may_give=True),
    Door(name="joinservice", purposes=frozenset({"join-server", "policy-server"})),
    Door(name="mesh", purposes=frozenset({"renew-client"})),
    Door(name="keyservice", purposes=frozenset({"grant-server"})),
    Door(name="verification", purposes=frozenset(), may_verify=True),
)
"""The sockets of a node, each in its own folder (`rpc.agent_client.agent_socket`)."""


def require_purpose(door: Door, purpose: str) -> None:
    """Check that a door attests for an aTLS purpose.

    Raises:
        Rejected: it does not.
    """
    if purpose not in door.purposes:
        allowed = ", ".join(sorted(door.purposes)) or "no channel"
        raise Rejected((f"socket {door.name}: purpose {purpose[:40]!r}, expected {allowed}",))


def require_verify(door: Door) -> None:
    """Check that a door attests for `verify` calls.

    Raises:
        Rejected: it does not.
    """
    if not door.may_verify:
        raise Rejected((f"socket {door.name} does not attest for verify calls",))


def require_give(door: Door) -> None:
    """Check that a door may give the node to a cluster.

    Raises:
        Rejected: it may not.
    """
    if not door.may_give:
        raise Rejected((f"socket {door.name} may not give the node to a cluster",))
