"""A node belongs to the cluster whose node document it has measured: six fields, no secret.

`create` makes the document once; every node gets its bytes as user data and measures their SHA-256
into PCR 8 before it talks to any peer. Whoever then appraises the node demands this cluster's
digest. Source: design, section 6. Parsing makes nothing trusted: the measurement does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from constellation.attestation.model import Variant  # noqa: TC001 - decode reads the hints
from constellation.base import decode
from constellation.base.errors import FormatError
from constellation.crypto.derive import CLUSTER_ID_BYTES

__all__ = [
    "MAX_NODE_DOCUMENT_BYTES",
    "NodeDocument",
    "dump_node_document",
    "node_document_digest",
    "parse_node_document",
]

# user data of the providers is at least this large everywhere (AWS: 16 KiB)
MAX_NODE_DOCUMENT_BYTES = 16 * 1024

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDocument:
    """What a node must know before it may trust anybody.

    `cluster_id` has 32 bytes; `owner_public_key` and `release_root` are DER SubjectPublicKeyInfo
    (P-256); `minimum_release` is the oldest release, as a version ("0.1.0"), that may run here.
    """

    version: int
    cluster_id: bytes
    owner_public_key: bytes
    release_root: bytes
    minimum_release: str
    variant: Variant

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise FormatError(f"node document: version {self.version}, want {_VERSION}")
        if len(self.cluster_id) != CLUSTER_ID_BYTES:
            raise FormatError(
                f"node document: clusterID of {len(self.cluster_id)} bytes, want {CLUSTER_ID_BYTES}"
            )
        for name in ("owner_public_key", "release_root", "minimum_release"):
            if not getattr(self, name):
                raise FormatError(f"node document: {name} is empty")


def dump_node_document(document: NodeDocument) -> bytes:
    """Write the bytes that nodes measure: canonical JSON."""
    return decode.dump(document)


def parse_node_document(data: bytes) -> NodeDocument:
    """Read a node document; only its one canonical spelling is accepted.

    Raises:
        FormatError: not a node document, larger than 16 KiB, or not in canonical form.
    """
    document = decode.load(
        NodeDocument, data, what="node document", max_bytes=MAX_NODE_DOCUMENT_BYTES
    )
    if dump_node_document(document) != data:
        raise FormatError("node document: not in canonical form")
    return document


def node_document_digest(data: bytes) -> bytes:
    """Give the digest (SHA-256, 32 bytes) that a node extends into PCR 8, of the very bytes."""
    return hashlib.sha256(data).digest()
