"""A peer list from the wire becomes one to keep, once the join key's signature holds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.kube.peers import Peer, SignedPeers, verify_peers

if TYPE_CHECKING:
    from constellation.rpc.stubs import join_pb2
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["verified_peer_list"]


def verified_peer_list(
    message: join_pb2.PeerList, *, policy: ClusterPolicy, minimum_serial: int
) -> SignedPeers:
    """Take a peer list that the policy's join key signed.

    Raises:
        Untrusted: another key signed it, or it is older than `minimum_serial`.
    """
    signed = SignedPeers(
        serial=message.serial,
        peers=tuple(
            Peer(
                node_name=p.node_name,
                address=p.address,
                mesh_public_key=p.mesh_public_key,
                mesh_address=p.mesh_address,
                pod_cidr=p.pod_cidr,
                role=p.role,
            )
            for p in message.peers
        ),
        signature=message.signature,
    )
    verify_peers(
        signed,
        join_public_key=policy.join_public_key,
        cluster_id=policy.cluster_id,
        minimum_serial=minimum_serial,
    )
    return signed
