"""How a cache gets all artifacts of a Kubernetes version, and the list that names them for nodes.

Two origins give the same versions: the official files, or a build from their Go modules. Either
is checked against the lock. Everything lies in the cache by its SHA-256; what is there and whole
is not fetched or made again, what is damaged is.
"""

from __future__ import annotations

import asyncio
import shutil
from enum import StrEnum
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable, UserError
from constellation.base.files import lock
from constellation.base.progress import Progress
from constellation.releases import lock as locks
from constellation.releases import official, source
from constellation.releases.content import ensure_content, recorded_content
from constellation.releases.recipes import NODE_PROGRAMS, image_recipes
from constellation.releases.store import Store
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.lock import Lock, LockedArtifact

__all__ = ["Origin", "ensure", "is_complete", "supported_versions", "verify_cache"]


class Origin(StrEnum):
    """Where artifacts come from; `AUTO`: what the cache has, else official, else source."""

    OFFICIAL = "official"
    SOURCE = "source"
    AUTO = "auto"


def supported_versions() -> tuple[str, ...]:
    """Give the Kubernetes versions of the lock, the newest first."""
    versions = locks.load().versions
    return tuple(sorted(versions, key=lambda v: [int(n) for n in v[1:].split(".")], reverse=True))


def is_complete(version: str, *, cache: Path) -> bool:
    """Say whether the cache has every artifact of this version, unpacked images included."""
    return _ready(locks.load(), version, Origin.AUTO, Store(cache), content=True) is not None


async def ensure(
    version: str,
    *,
    origin: str = Origin.AUTO,
    cache: Path,
    report: Report,
    tools: Path | None = None,
    content: bool = True,
    origins: official.Origins | None = None,
    packaged: Lock | None = None,
) -> ArtifactList:
    """Fill `cache` with every artifact of Kubernetes `version` ("v1.36.2") and name them.

    Args:
        version: one of `supported_versions`.
        origin: "official", "source" or "auto".
        cache: files go to `cache`/sha256/HEX.
        report: told what is done: packages of packages, bytes of bytes.
        tools: the tools root that has mksquashfs; None: the host's.
        content: also give containerd's unpacked content (making it needs root).
        origins: where the official hosts are, if they are copied somewhere.
        packaged: the lock; None: the one that comes with the package.

    Raises:
        UserError: the version is not supported, or the content must be made without root.
        WrongDigest: something is not what the lock says; it was not kept.
        Unavailable: an origin does not answer or a build failed; the same call goes on.
        Conflict: another process is filling the same cache.
    """
    chosen = _origin(origin)
    packaged = packaged or locks.load()
    packaged.of(version)
    store = Store(cache)
    ready = await asyncio.to_thread(_ready, packaged, version, chosen, store, content)
    if ready is not None:
        return ready
    with lock(cache / "mirror.lock", what="the artifact cache"):
        await asyncio.to_thread(_sweep, cache)
        store = Store(cache)
        store.give_to_owner(cache / "mirror.lock")
        made = await _make(
            packaged, version, chosen, store=store, report=report,
            origins=origins or official.Origins(),
        )  # fmt: skip
        artifacts = _list(packaged, version, made)
        if not content:
            return artifacts
        unpacked = await ensure_content(artifacts, store=store, tools=tools, report=report)
        return artifacts.with_artifacts(unpacked)


async def verify_cache(cache: Path) -> tuple[str, ...]:
    """Hash every file of the cache; remove the damaged ones and give their SHA-256 (hex)."""
    return await asyncio.to_thread(Store(cache).verify)


def _origin(text: str) -> Origin:
    try:
        return Origin(text)
    except ValueError:
        raise UserError(
            f"origin {text[:40]!r} is unknown", where="--from", hint=f"one of {', '.join(Origin)}"
        ) from None


def _ready(
    packaged: Lock, version: str, origin: Origin, store: Store, content: bool
) -> ArtifactList | None:
    """Give the list if nothing has to be made: the warm way, without network and lock."""
    made = _in_cache(packaged, version, origin, store)
    if made is None:
        return None
    artifacts = _list(packaged, version, made)
    if not content:
        return artifacts
    unpacked = recorded_content(artifacts, store=store)
    return None if unpacked is None else artifacts.with_artifacts(unpacked)


def _in_cache(
    packaged: Lock, version: str, origin: Origin, store: Store
) -> Mapping[str, LockedArtifact] | None:
    wanted = packaged.of(version)
    if origin is not Origin.OFFICIAL and all(
        store.has(a.sha256, size_bytes=a.size_bytes) for a in wanted.source.values()
    ):
        return wanted.source
    return None if origin is Origin.SOURCE else official.recorded(wanted, store=store)


async def _make(
    packaged: Lock,
    version: str,
    origin: Origin,
    *,
    store: Store,
    report: Report,
    origins: official.Origins,
) -> Mapping[str, LockedArtifact]:
    wanted = packaged.of(version)
    cached = await asyncio.to_thread(_in_cache, packaged, version, origin, store)
    if cached is not None:
        return cached
    if origin is Origin.OFFICIAL or (
        origin is Origin.AUTO and await official.answers(wanted, origins=origins)
    ):
        try:
            return await official.fetch(wanted, origins=origins, store=store, report=report)
        except Unavailable as error:
            if origin is Origin.OFFICIAL:
                raise
            report(Progress(step=f"Kubernetes {version}", detail=f"{error}; building instead"))
    return await source.build(
        version,
        modules=locks.artifacts_folder(),
        wheel=packaged.toolchain,
        expected=wanted.source,
        store=store,
        report=report,
    )


def _sweep(cache: Path) -> None:
    # what a killed run left behind; the lock is held, so none is in use
    for folder in cache.glob(".staging-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _list(packaged: Lock, version: str, made: Mapping[str, LockedArtifact]) -> ArtifactList:
    published = {
        (file.sha256, name): file.url
        for file in packaged.of(version).files
        for name in file.programs.values()
    }

    def artifact(name: str, kind: ArtifactKind) -> Artifact:
        one = made[name]
        url = published.get((one.sha256, name))
        return Artifact(
            name=name,
            kind=kind,
            sha256=one.sha256,
            size_bytes=one.size_bytes,
            urls=() if url is None else (url,),
        )

    images = tuple(image.reference for image in image_recipes(version))
    return ArtifactList(kubernetes_version=version, artifacts=()).with_artifacts(
        *(artifact(name, ArtifactKind.BINARY) for name in NODE_PROGRAMS),
        *(artifact(name, ArtifactKind.IMAGE) for name in images),
    )
