"""Who is at the other end of this very channel: owner key or join key over the TLS exporter.

The exporter's label is the signature's label, so a proof of one kind is never the other, and both
differ from the label of bindings. Source: design, section 6 ("Every signature covers …").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from constellation.crypto import signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "JOIN_CHANNEL_LABEL",
    "OWNER_CHANNEL_LABEL",
    "OwnerPurpose",
    "prove_join_channel",
    "prove_owner_channel",
    "verify_join_channel",
    "verify_owner_channel",
]

OWNER_CHANNEL_LABEL = "constellation-owner-channel-v1"
"""Label of the exporter and of the signature when the owner speaks to a node."""

JOIN_CHANNEL_LABEL = "constellation-join-channel-v1"
"""Label of the exporter and of the signature when a JoinService speaks to a node."""

OwnerPurpose = Literal["init", "recover", "policy"]
_JOIN_PURPOSE = "join"


def prove_owner_channel(
    owner_key: ec.EllipticCurvePrivateKey,
    *,
    exporter: bytes,
    cluster_id: bytes,
    purpose: OwnerPurpose,
) -> bytes:
    """Sign `exporter` (32 bytes, label `OWNER_CHANNEL_LABEL`) with the owner key."""
    return signing.sign(
        owner_key, exporter, label=OWNER_CHANNEL_LABEL, cluster_id=cluster_id, purpose=purpose
    )


def verify_owner_channel(
    owner_public_key: bytes,
    signature: bytes,
    *,
    exporter: bytes,
    cluster_id: bytes,
    purpose: OwnerPurpose,
) -> None:
    """Check that the owner (DER, from the node's own document) is at the other end.

    Raises:
        Untrusted: the owner key did not sign this channel for this purpose and cluster.
    """
    signing.verify(
        owner_public_key,
        signature,
        exporter,
        label=OWNER_CHANNEL_LABEL,
        cluster_id=cluster_id,
        purpose=purpose,
    )


def prove_join_channel(
    join_key: ec.EllipticCurvePrivateKey, *, exporter: bytes, cluster_id: bytes
) -> bytes:
    """Sign `exporter` (32 bytes, label `JOIN_CHANNEL_LABEL`) with the join key."""
    return signing.sign(
        join_key, exporter, label=JOIN_CHANNEL_LABEL, cluster_id=cluster_id, purpose=_JOIN_PURPOSE
    )


def verify_join_channel(
    join_public_key: bytes, signature: bytes, *, exporter: bytes, cluster_id: bytes
) -> None:
    """Check that a holder of the join key (DER, from the signed policy) is at the other end.

    Raises:
        Untrusted: the join key did not sign this channel for this cluster.
    """
    signing.verify(
        join_public_key,
        signature,
        exporter,
        label=JOIN_CHANNEL_LABEL,
        cluster_id=cluster_id,
        purpose=_JOIN_PURPOSE,
    )
