"""Whom a node talks to in the mesh: the peer list, its signed bytes, and when to believe one.

Signed with the join key (label "constellation-peers-v1", purpose "peers"), so that a list says the
same wherever it was kept or fetched. Serials only grow: an older list is a replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import Untrusted
from constellation.crypto import signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.kube.membership import Member, Membership

__all__ = [
    "Peer",
    "SignedPeers",
    "load_peers",
    "peer_bytes",
    "peers_of",
    "sign_peers",
    "verify_peers",
]

_LABEL = "constellation-peers-v1"
_PURPOSE = "peers"
_MAX_LIST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One node as the others see it; fields as in `join.proto`. `mesh_public_key`: 32 bytes."""

    node_name: str
    address: str
    mesh_public_key: bytes
    mesh_address: str
    pod_cidr: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPeers:
    """A peer list with the join key's signature over `peer_bytes`; kept in `peers.json`."""

    serial: int
    peers: tuple[Peer, ...]
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    serial: int
    peers: tuple[Peer, ...]


def peers_of(membership: Membership) -> tuple[Peer, ...]:
    """List live and reserved nodes: a node that has a ticket must be reachable at once."""
    placed = (*membership.nodes, *(r.member for r in membership.reservations))
    return tuple(sorted(map(_peer, placed), key=lambda p: p.node_name))


def peer_bytes(serial: int, peers: tuple[Peer, ...]) -> bytes:
    """Give the bytes that the signature of a peer list covers (canonical JSON)."""
    return decode.dump(_Signed(serial=serial, peers=peers))


def sign_peers(membership: Membership, *, join_private_key: EllipticCurvePrivateKey) -> SignedPeers:
    """Make the signed peer list of this membership."""
    serial, peers = membership.peers_serial, peers_of(membership)
    signature = signing.sign(
        join_private_key,
        peer_bytes(serial, peers),
        label=_LABEL,
        cluster_id=membership.settings.cluster_id,
        purpose=_PURPOSE,
    )
    return SignedPeers(serial=serial, peers=peers, signature=signature)


def verify_peers(
    signed: SignedPeers, *, join_public_key: bytes, cluster_id: bytes, minimum_serial: int
) -> None:
    """Check signature and serial of a peer list (`join_public_key`: DER, from the policy).

    Raises:
        Untrusted: the join key did not sign it, or it is older than `minimum_serial`.
    """
    signing.verify(
        join_public_key,
        signed.signature,
        peer_bytes(signed.serial, signed.peers),
        label=_LABEL,
        cluster_id=cluster_id,
        purpose=_PURPOSE,
    )
    if signed.serial < minimum_serial:
        raise Untrusted(
            f"peer list: serial {signed.serial}, expected at least {minimum_serial} (a replay)"
        )


def load_peers(data: bytes, *, what: str) -> SignedPeers:
    """Read `peers.json`; proves shape only.

    Raises:
        FormatError: not a peer list.
    """
    return decode.load(SignedPeers, data, what=what, max_bytes=_MAX_LIST_BYTES)


def _peer(member: Member) -> Peer:
    return Peer(
        node_name=member.name,
        address=member.address,
        mesh_public_key=member.mesh_public_key,
        mesh_address=member.mesh_address,
        pod_cidr=member.pod_cidr,
        role=str(member.role),
    )
