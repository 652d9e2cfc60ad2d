"""Is this the cluster's master secret, and which key does it give a state disk? Pure.

Bootstrapper and recovery server refuse a master secret that does not give the clusterID of the
node's own document. Source: design, sections 6 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from constellation.base.errors import Rejected
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, cluster_id, derive_key

if TYPE_CHECKING:
    from constellation.trust.node_document import NodeDocument

__all__ = ["DISK_KEY_BYTES", "disk_key", "own_master_secret"]

DISK_KEY_BYTES: Final = 64
"""What native encryption and LUKS2 with AES-256-XTS take."""


def own_master_secret(
    master_key: bytes, master_salt: bytes, *, document: NodeDocument
) -> MasterSecret:
    """Take key and salt (32 bytes each) as the master secret of this node's own cluster.

    Raises:
        Rejected: they give another clusterID than the node document names.
        FormatError: they have another size.
    """
    master = MasterSecret(key=Secret(master_key), salt=Secret(master_salt))
    if (found := cluster_id(master)) != document.cluster_id:
        wanted = document.cluster_id.hex()
        raise Rejected(
            (f"master secret: gives clusterID {found.hex()}, this node belongs to {wanted}",),
            hint="use the workspace that created this cluster",
        )
    return master


def disk_key(master: MasterSecret, disk_uuid: bytes) -> Secret:
    """Derive the key (64 bytes) of the state disk with this uuid (16 bytes)."""
    return derive_key(master, f"state-disk/{disk_uuid.hex()}", size_bytes=DISK_KEY_BYTES)
