"""How pods of one node get their addresses: the CNI configuration. Pure.

What leads to the pods of other nodes is the mesh's. Sources: CNI specification 1.0.0; plugins ptp,
host-local, portmap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

__all__ = ["BIN_DIR", "CONFIG_DIR", "MTU", "PLUGINS", "configuration"]

CONFIG_DIR: Final = Path("/run/constellation/cni/conf")
BIN_DIR: Final = Path("/run/constellation/cni/bin")
PLUGINS: Final = ("ptp", "host-local", "portmap", "bridge", "loopback")
MTU: Final = 1390
"""Of pods' links and of the mesh: 1450 bytes, what the narrowest cloud's network takes (OpenStack's
overlays; Google's 1460), less WireGuard's headers over IPv4 (60). More goes in two fragments."""
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
