"""How the peers of a list become WireGuard's configuration and routes. Pure.

Each peer may send from its pod CIDR and its mesh address, nothing else (WireGuard's allowed IPs).
Sources: WireGuard, "Cross-platform Userspace Implementation" (configuration protocol); wg(8).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from constellation.base.secret import Secret

if TYPE_CHECKING:
    from constellation.kube.peers import Peer

__all__ = ["PORT", "others", "routes", "tool_configuration", "uapi_configuration"]

PORT = 51820
"""UDP port on a node's own address."""


def others(peers: tuple[Peer, ...], *, own_name: str) -> tuple[Peer, ...]:
    """Give all peers but this node itself."""
    return tuple(p for p in peers if p.node_name != own_name)


def routes(peers: tuple[Peer, ...]) -> frozenset[str]:
    """Give the networks that lead through wg0."""
    return frozenset(p.pod_cidr for p in peers)


def uapi_configuration(
    peers: tuple[Peer, ...], *, before: tuple[Peer, ...] | None, private_key: Secret
) -> Secret:
    """Write a `set=1` request that makes the device have exactly these peers.

    `before` are the peers that it has; None: unknown, all are replaced and lose their sessions.
    Otherwise peers that stay keep theirs.
    """
    lines = [
        "set=1",
        f"private_key={private_key.reveal().hex()}",
        f"listen_port={PORT}",
    ]
    if before is None:
        lines.append("replace_peers=true")
    stay = {p.mesh_public_key for p in peers}
    for gone in before or ():
        if gone.mesh_public_key not in stay:
            lines += [f"public_key={gone.mesh_public_key.hex()}", "remove=true"]
    for peer in peers:
        lines += [
            f"public_key={peer.mesh_public_key.hex()}",
            f"endpoint={peer.address}:{PORT}",
            "replace_allowed_ips=true",
            f"allowed_ip={peer.pod_cidr}",
            f"allowed_ip={peer.mesh_address}/32",
        ]
    return Secret(("\n".join(lines) + "\n\n").encode())


def tool_configuration(peers: tuple[Peer, ...], *, private_key: Secret) -> Secret:
    """Write the same for `wg syncconf`, which configures the kernel's WireGuard."""
    lines = [
        "[Interface]",
        f"PrivateKey = {base64.b64encode(private_key.reveal()).decode()}",
        f"ListenPort = {PORT}",
    ]
    for peer in peers:
        lines += [
            "[Peer]",
            f"PublicKey = {base64.b64encode(peer.mesh_public_key).decode()}",
            f"Endpoint = {peer.address}:{PORT}",
            f"AllowedIPs = {peer.pod_cidr}, {peer.mesh_address}/32",
        ]
    return Secret(("\n".join(lines) + "\n").encode())
