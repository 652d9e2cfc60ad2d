"""Cluster policies of an upgrade, with the artifact list that they name."""

from __future__ import annotations

import hashlib

from constellation.crypto.signing import spki
from constellation.trust.cluster_policy import ClusterPolicy
from tests.fakes.cluster_machines import OURS, release_of

__all__ = ["policy_of"]


def policy_of(
    listed: bytes, *, kubernetes: str, serial: int, images: tuple[bytes, ...] = (bytes(32),)
) -> ClusterPolicy:
    return ClusterPolicy(
        cluster_id=OURS.document.cluster_id,
        serial=serial,
        releases=tuple(release_of(image) for image in images),
        trust_roots=(b"root",),
        artifact_lists={kubernetes: hashlib.sha256(listed).digest()},
        services_bundle=bytes(32),
        kubernetes_version=kubernetes,
        join_public_key=spki(OURS.join.public_key()),
    )
