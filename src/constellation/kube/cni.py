"""How pods of one node get addresses and reach the pods of another: CNI configuration and routes.

Pure. Plain routes between nodes, not encrypted: the mesh takes their place and drops this traffic.
Sources: CNI specification 1.0.0; plugins ptp, host-local, portmap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.kube.peers import Peer

__all__ = ["BIN_DIR", "CONFIG_DIR", "PLUGINS", "configuration", "plain_routes"]

CONFIG_DIR: Final = Path("/run/constellation/cni/conf")
BIN_DIR: Final = Path("/run/constellation/cni/bin")
PLUGINS: Final = ("ptp", "host-local", "portmap", "bridge", "loopback")
_STATE_DIR = "/run/constellation/cni/addresses"


def configuration(*, pod_cidr: str, mtu: int) -> bytes:
    """Give the conflist of a node with this pod CIDR: a veth pair a pod, routed, no bridge."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "constellation",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "mtu": mtu,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": _STATE_DIR,
                        "ranges": [[{"subnet": pod_cidr}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
            ],
        },
        indent=1,
    ).encode()


def plain_routes(peers: Iterable[Peer], *, own_name: str) -> tuple[tuple[str, str], ...]:
    """Give (pod CIDR, gateway) for every other node."""
    return tuple((p.pod_cidr, p.address) for p in peers if p.node_name != own_name)
