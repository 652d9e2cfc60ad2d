"""What a node must remember to start again without asking anybody: `node.json` on its state disk.

Written as the last step of init or join, read at each later boot. It lies in the encrypted folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from constellation.base import decode
from constellation.kube.membership import NodeRole  # noqa: TC001 - decode reads the hints

__all__ = ["NODE_JSON", "NodeRecord", "dump_node_record", "load_node_record"]

NODE_JSON = Path("/var/lib/constellation/node.json")
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One node of one cluster.

    `cluster_id`: 32 bytes; `disk_uuid`: 16 bytes; `endpoint` is host:port of the API server as
    nodes reach it; `pod_cidr` is this node's, `pod_network` all nodes'; `artifact_list` is the
    canonical JSON of `trust.artifact_list`; `time` is seconds since 1970 when this was written;
    `provider` is where the machine is from, as its measured command line says.
    """

    name: str
    instance_id: str
    role: NodeRole
    group: str
    address: str
    mesh_address: str
    pod_cidr: str
    pod_network: str
    mesh_cidr: str
    service_cidr: str
    cluster_id: bytes
    disk_uuid: bytes
    endpoint: str
    kubernetes_version: str
    artifact_list: bytes
    time: int
    provider: str = "local"


def dump_node_record(record: NodeRecord) -> bytes:
    """Write canonical JSON."""
    return decode.dump(record)


def load_node_record(data: bytes) -> NodeRecord:
    """Read what `dump_node_record` wrote.

    Raises:
        FormatError: something else, or larger than 256 KiB.
    """
    return decode.load(NodeRecord, data, what="node.json", max_bytes=_MAX_BYTES)
