"""How a cache gets all artifacts of a Kubernetes version, and the list that names them for nodes.

Two origins give the same versions: the official files, or a build from their Go modules. Either
is checked against the lock. Everything lies in the cache by its SHA-256; what is there and whole
is not fetched or made again, what is damaged is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.releases import lock as locks
from constellation.releases import source
from constellation.releases.content import ensure_content
from constellation.releases.recipes import NODE_PROGRAMS, image_recipes
from constellation.releases.store import Store
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.lock import LockedArtifact

__all__ = ["ensure", "verify_cache"]


async def ensure(
    version: str, *, cache: Path, report: Report, tools: Path | None = None
) -> ArtifactList:
    """Fill `cache` with every artifact of Kubernetes `version` ("v1.36.2") and name them.

    Raises:
        UserError: the version is not supported.
        WrongDigest: something is not what the lock says; it was not kept.
        Unavailable: an origin does not answer or a build failed; the same call goes on.
    """
    lock = locks.load()
    store = Store(cache)
    made = await source.build(
        version,
        modules=locks.artifacts_folder(),
        wheel=lock.toolchain,
        expected=lock.of(version).source,
        store=store,
        report=report,
    )
    artifacts = _list(version, made)
    unpacked = await ensure_content(artifacts, store=store, tools=tools, report=report)
    return artifacts.with_artifacts(unpacked)


async def verify_cache(cache: Path) -> tuple[str, ...]:
    """Hash every file of the cache; remove the damaged ones and give their SHA-256 (hex)."""
    return await asyncio.to_thread(Store(cache).verify)


def _list(version: str, made: Mapping[str, LockedArtifact]) -> ArtifactList:
    images = tuple(image.reference for image in image_recipes(version))
    empty = ArtifactList(kubernetes_version=version, artifacts=())
    return empty.with_artifacts(
        *(_artifact(made, name, ArtifactKind.BINARY) for name in NODE_PROGRAMS),
        *(_artifact(made, name, ArtifactKind.IMAGE) for name in images),
    )


def _artifact(made: Mapping[str, LockedArtifact], name: str, kind: ArtifactKind) -> Artifact:
    return Artifact(
        name=name, kind=kind, sha256=made[name].sha256, size_bytes=made[name].size_bytes
    )
