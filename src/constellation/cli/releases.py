"""Where the releases that a command works with come from: built here, or a repository.

A cluster on this machine follows the development release of its cache, unless the configuration
names a repository and the root to trust.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import clock, decode
from constellation.base.errors import UserError
from constellation.cli.world import LocalSupplies, ensure_artifacts
from constellation.image.development_release import (
    ensure_development_release,
    ensure_development_repository,
)
from constellation.kube.cloud_objects import MAX_BYTES, artifact_name, check_objects
from constellation.releases import mirror
from constellation.releases.site import Site
from constellation.releases.store import Store
from constellation.trust.artifact_list import Artifact, ArtifactKind
from constellation.trust.release import ReleaseImage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.base.progress import Report
    from constellation.config.schema import Config
    from constellation.config.workspace import Workspace
    from constellation.image import build
    from constellation.trust.artifact_list import ArtifactList

__all__ = ["Parts", "Source", "build_parts", "find_source", "read_node_image", "with_cloud_objects"]

_MAX_ROOT_BYTES = _MAX_STATEMENT_BYTES = 64 * 1024
_CLOUDS = ("aws", "azure", "gcp", "openstack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a release of this machine is made of; `kubernetes`: complete lists by version."""

    image: build.NodeImage
    services: build.ServicesBundle
    kubernetes: dict[str, ArtifactList]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A repository, and the root metadata to start from."""

    site: Site
    pinned_root: bytes


async def build_parts(cache: Path, *, report: Report, kubernetes: Iterable[str]) -> Parts:
    """Have node image, services bundle and these Kubernetes versions in the cache."""
    supplies = LocalSupplies(cache=cache)
    lists = [await ensure_artifacts(v, cache=cache, report=report) for v in kubernetes]
    image, services, service_artifact = await supplies.built(report=report)
    return Parts(
        image=image,
        services=services,
        kubernetes={v.kubernetes_version: v.with_artifacts(service_artifact) for v in lists},
    )


def with_cloud_objects(parts: Parts, words: Iterable[str], *, cache: Path) -> Parts:
    """Add files of clouds' components ("aws=FILE") to every Kubernetes version's list.

    Raises:
        UserError: a word is none, or a file cannot be read.
        Rejected, FormatError: what is in it may not run (`kube.cloud_objects`).
    """
    added = [_cloud_objects(word, cache=cache) for word in words]
    lists = {v: listed.with_artifacts(*added) for v, listed in parts.kubernetes.items()}
    return replace(parts, kubernetes=lists)


def _cloud_objects(word: str, *, cache: Path) -> Artifact:
    provider, _, name = word.partition("=")
    if provider not in _CLOUDS or not name:
        raise UserError(f"expected PROVIDER=FILE, found {word[:80]!r}", where="--cloud-objects")
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=name) from None
    check_objects(data)
    store = Store(cache)
    with store.staging() as folder:
        copy = folder / provider
        copy.write_bytes(data)
        digest, size = store.put(copy, name=name, expected=None)
    return Artifact(
        name=artifact_name(provider), kind=ArtifactKind.OBJECTS, sha256=digest, size_bytes=size
    )


def read_node_image(path: Path) -> ReleaseImage:
    """Read what `image build` stated of a node image; the release that it comes into judges it.

    Raises:
        UserError: it cannot be read.
        FormatError: not such a statement.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_STATEMENT_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return decode.load(ReleaseImage, data, what=str(path), max_bytes=_MAX_STATEMENT_BYTES)


async def find_source(
    workspace: Workspace, config: Config, *, cache: Path, report: Report
) -> Source:
    """Give the repository that the configuration names, else the one of this machine, up to date.

    Raises:
        UserError: a repository without a root to trust, or the root cannot be read.
    """
    wanted = config.releases
    if not wanted.repository:
        return await _own(cache, report=report)
    if not wanted.root:
        raise UserError(
            "a repository is believed only with a root to start from",
            where=f"{workspace.config.name}: releases.root",
            hint="name the file with the publisher's root metadata (1.root.json)",
        )
    path = workspace.folder / wanted.root
    try:
        root = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    place = wanted.repository
    if "://" not in place:
        place = str(workspace.folder / place)
    return Source(site=Site(place=place), pinned_root=root[:_MAX_ROOT_BYTES])


async def _own(cache: Path, *, report: Report) -> Source:
    """Publish what this machine has now: its Kubernetes versions are those in the cache."""
    there = [v for v in mirror.supported_versions() if mirror.is_complete(v, cache=cache)]
    parts = await build_parts(cache, report=report, kubernetes=there)
    repository = await asyncio.to_thread(ensure_development_repository, cache, now=clock.now())
    await asyncio.to_thread(
        ensure_development_release,
        repository,
        image=parts.image,
        services=parts.services,
        kubernetes=parts.kubernetes,
    )
    return Source(site=Site(place=str(repository.folder)), pinned_root=repository.pinned_root)
