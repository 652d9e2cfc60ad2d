"""Until the mesh has loaded its packet filter, no packet of a pod leaves its node. Pure.

Kubelet may start pods before the mesh runs; without a filter they would reach other nodes, the
provider's services and pods elsewhere in plain text. The table has the name of the mesh's own,
which replaces it in one transaction (`services.mesh.firewall`): a mesh that never starts leaves
the node closed, not open. Source: design, section 10, "Mesh"; nft(8).
"""

from __future__ import annotations

from typing import Final

__all__ = ["TABLE", "closed"]

TABLE: Final = ("inet", "constellation")
"""Family and name of the node's packet filter."""

_POD_LINKS = "veth*"
_NODE_PORTS = "6443, 10250"


def closed(pod_network: str) -> str:
    """Give the input of `nft -f`: pods reach this node's API server and kubelet, and nothing else.

    Nothing goes to the pods of other nodes (`pod_network`), by whatever link.
    """
    return f"""table inet constellation
delete table inet constellation
table inet constellation {{
  chain leaving {{
    type filter hook postrouting priority mangle; policy accept;
    oifname {{ "lo" }} accept
    oifname "{_POD_LINKS}" accept
    ip daddr {pod_network} drop
  }}

  chain to_this_node {{
    type filter hook input priority filter; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    iifname != "{_POD_LINKS}" accept
    ct state established,related accept
    tcp dport {{ {_NODE_PORTS} }} accept
    drop
  }}

  chain through_this_node {{
    type filter hook forward priority filter; policy accept;
    iifname "{_POD_LINKS}" oifname "{_POD_LINKS}" accept
    iifname "{_POD_LINKS}" drop
    oifname "{_POD_LINKS}" drop
  }}
}}
"""
