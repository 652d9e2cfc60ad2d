"""Which packets a node lets pass: one nftables table, as text, from who is where. Pure.

Design, section 10, "Mesh". Traffic between this node or its pods and another node's pods passes
through wg0 or not at all; pods reach node addresses on 6443 and 10250 only, and of the provider's
link-local services only DNS. Packets are judged after kube-proxy's DNAT, by where they really go.
Sources: nftables, nft(8); hook priorities: raw -300, mangle -150, filter 0, srcnat 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constellation.kube.peers import Peer

__all__ = ["DEVICE", "Place", "ruleset"]

DEVICE = "wg0"
"""The mesh's link on every node."""

_POD_LINKS = "veth*"
"""Names of the host's ends of pods' links (CNI plugin ptp)."""

_PROVIDERS = "169.254.0.0/16, 168.63.129.16"
"""Where providers answer their own machines: metadata, scaling groups, artifacts.

169.254.169.254 on every cloud (RFC 3927), 169.254.169.253 (AWS' DNS), 169.254.169.123 (AWS' time);
168.63.129.16 on Azure (its wire server, agents' settings and DNS: "What is IP address
168.63.129.16"). IPv6 addresses of such services (AWS: fd00:ec2::254) are out of pods' reach: pods
have IPv4 only, and nothing else is forwarded for them.
"""

_NODE_PORTS = "6443, 10250"
"""API server and kubelet: both demand TLS and credentials of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This node in the network: own address, mesh address, own pod CIDR and those of all."""

    address: str
    mesh_address: str
    pod_cidr: str
    pod_network: str
    mesh_cidr: str


def ruleset(place: Place, peers: tuple[Peer, ...]) -> str:
    """Give the input of `nft -f`: replaces the table in one transaction, so never open between."""
    nodes = ", ".join(sorted({place.address, *(p.address for p in peers)}))
    return f"""table inet constellation
delete table inet constellation
table inet constellation {{
  set nodes {{ type ipv4_addr; elements = {{ {nodes} }} }}

  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname "lo" accept
    iifname "{_POD_LINKS}" ip saddr != {place.pod_cidr} ip saddr != 0.0.0.0 drop
    iifname "{_POD_LINKS}" accept
    ip saddr {place.pod_cidr} drop
    iifname != "{DEVICE}" ip saddr {{ {place.pod_network}, {place.mesh_cidr} }} drop
    iifname "{DEVICE}" ip saddr != {{ {place.pod_network}, {place.mesh_cidr} }} drop
  }}

  chain leaving {{
    type filter hook postrouting priority mangle; policy accept;
    oifname {{ "lo", "{DEVICE}" }} accept
    ip daddr {place.pod_cidr} accept
    ip daddr {{ {place.pod_network}, {place.mesh_cidr} }} drop
  }}

  chain to_this_node {{
    type filter hook input priority filter; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    iifname != "{_POD_LINKS}" iifname != "{DEVICE}" accept
    ct state established,related accept
    icmp type echo-request accept
    iifname "{_POD_LINKS}" tcp dport {{ {_NODE_PORTS} }} accept
    drop
  }}

  chain through_this_node {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname != "{_POD_LINKS}" accept
    ip daddr {place.pod_network} accept
    ip daddr @nodes tcp dport {{ {_NODE_PORTS} }} accept
    ip daddr @nodes drop
    ip daddr {place.mesh_cidr} drop
    ip daddr {{ {_PROVIDERS} }} meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr {{ {_PROVIDERS} }} drop
    meta nfproto ipv6 drop
  }}

  chain masked {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{DEVICE}" ip saddr != {place.pod_cidr} ip saddr != {place.mesh_address} masquerade
    oifname != "{DEVICE}" ip saddr {place.pod_cidr} ip daddr != {place.pod_network} masquerade
  }}
}}
"""
