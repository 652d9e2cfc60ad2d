"""Only this cluster's master secret gives a key for this node's disk."""

from __future__ import annotations

import pytest

from constellation.attestation.model import Variant
from constellation.base.errors import FormatError, Rejected
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, cluster_id, derive_key
from constellation.trust.disk_key import disk_key, own_master_secret
from constellation.trust.node_document import NodeDocument

KEY, SALT, UUID = bytes(range(32)), bytes(range(32, 64)), bytes(range(16))
MASTER = MasterSecret(key=Secret(KEY), salt=Secret(SALT))
DOCUMENT = NodeDocument(
    version=1,
    cluster_id=cluster_id(MASTER),
    owner_public_key=b"owner",
    release_root=b"root",
    minimum_release="0.1.0",
    variant=Variant.LOCAL_VTPM,
)


def test_the_key_is_the_one_that_a_ticket_would_bring() -> None:
    expected = derive_key(MASTER, f"state-disk/{UUID.hex()}", size_bytes=64)
    assert disk_key(own_master_secret(KEY, SALT, document=DOCUMENT), UUID) == expected


def test_the_master_secret_of_another_cluster_is_refused() -> None:
    with pytest.raises(Rejected, match="clusterID"):
        own_master_secret(SALT, SALT, document=DOCUMENT)


def test_a_short_master_secret_is_refused() -> None:
    with pytest.raises(FormatError):
        own_master_secret(KEY[:31], SALT, document=DOCUMENT)
