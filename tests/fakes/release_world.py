"""Makers of releases with real keys and a real repository, and what stands in a small release."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from constellation.attestation.model import Variant
from constellation.crypto.signing import generate_key, spki
from constellation.releases.repository import LIFETIMES, ROLES, Repository, RoleKeys
from constellation.releases.site import Site, fetch_chain
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy
from constellation.trust.release import (
    ReferenceSet,
    Release,
    ReleaseImage,
    dump_release,
    sign_release,
)
from constellation.trust.release_chain import (
    NOTHING_SEEN,
    ReleaseChain,
    SeenVersions,
    VerifiedRelease,
    verify_chain,
)

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
VERSIONS = ("v1.35.3", "v1.36.1", "v1.36.2")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def artifacts(kubernetes: str, *, services: str) -> ArtifactList:
    return ArtifactList(
        kubernetes_version=kubernetes,
        artifacts=(
            Artifact(
                name="services", kind=ArtifactKind.ARCHIVE, sha256=digest(services), size_bytes=10
            ),
            Artifact(
                name="kubectl",
                kind=ArtifactKind.BINARY,
                sha256=digest(f"kubectl {kubernetes}"),
                size_bytes=10,
            ),
            Artifact(
                name="kubelet", kind=ArtifactKind.BINARY, sha256=digest(kubernetes), size_bytes=10
            ),
        ),
    )


def image(version: str, **changes: object) -> ReleaseImage:
    registers = {4: (digest(f"pcr4 {version}"),), 9: (digest(f"pcr9 {version}"), digest("cgroup"))}
    made = ReleaseImage(
        provider="local",
        variant=Variant.LOCAL_VTPM,
        name="constellation-node-local",
        sha256=digest(f"image {version}"),
        size_bytes=1000,
        urls=(),
        reference=(ReferenceSet(not_before=1000, not_after=None, registers=registers),),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type] # fields by name


def release(version: str, **changes: object) -> Release:
    made = Release(
        format=1,
        version=version,
        created=NOW_S,
        images=(image(version),),
        services_bundle=digest(f"services {version}"),
        kubernetes={v: artifacts(v, services=f"services {version}") for v in VERSIONS},
        minimum_version="0.1.0",
        withdrawn=(),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type] # fields by name


def policy(**changes: object) -> ClusterPolicy:
    """Give the policy of a cluster that was made without a release."""
    made = ClusterPolicy(
        cluster_id=bytes([7]) * 32,
        serial=1,
        releases=(
            AcceptedRelease(
                name="0.0.9+own",
                not_before=500,
                not_after=None,
                image_digest=bytes([1]) * 32,
                reference={4: (bytes([4]) * 32,), 9: (bytes([9]) * 32,)},
            ),
        ),
        trust_roots=(b"root",),
        artifact_lists={"v1.36.1": bytes(32)},
        services_bundle=bytes(32),
        kubernetes_version="v1.36.1",
        join_public_key=b"join",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type] # fields by name


@dataclass
class Maker:
    """Somebody who publishes releases in `folder`: two of three root keys, one release key."""

    folder: Path
    now: datetime = NOW
    lifetimes: dict[str, timedelta] = field(default_factory=lambda: dict(LIFETIMES))
    root_keys: list[EllipticCurvePrivateKey] = field(
        default_factory=lambda: [generate_key() for _ in range(3)]
    )
    release_key: EllipticCurvePrivateKey = field(default_factory=generate_key)
    online_key: EllipticCurvePrivateKey = field(default_factory=generate_key)
    pinned_root: bytes = b""

    def repository(self, *keys: EllipticCurvePrivateKey) -> Repository:
        own = (*self.root_keys, self.release_key, self.online_key)
        return Repository(
            folder=self.folder, keys=keys or own, now=self.now, lifetimes=self.lifetimes
        )

    def create(self) -> Maker:
        keys = {role: RoleKeys(public_keys=(self._spki(role),), threshold=1) for role in ROLES}
        keys["root"] = RoleKeys(
            public_keys=tuple(spki(k.public_key()) for k in self.root_keys), threshold=2
        )
        self.pinned_root = self.repository().create(keys)
        return self

    def _spki(self, role: str) -> bytes:
        key = self.release_key if role == "targets" else self.online_key
        return spki(key.public_key())

    def publish(self, *releases: Release) -> Maker:
        for each in releases:
            data = dump_release(each)
            self.repository().publish(data, sign_release(data, self.release_key))
        return self

    def chain(self, version: str | None = None) -> ReleaseChain:
        site = Site(place=str(self.folder))
        return asyncio.run(fetch_chain(site, pinned_root=self.pinned_root, version=version))

    def verified(
        self, version: str | None = None, *, seen: SeenVersions = NOTHING_SEEN
    ) -> VerifiedRelease:
        return verify_chain(
            self.chain(version), pinned_root=self.pinned_root, seen=seen, now=self.now
        )
