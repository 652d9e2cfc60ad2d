"""What does this machine offer its own clusters? A release of whatever was built here last.

It is published in `releases/development` of the cache folder, signed with the development release
key for every role, and numbered: 0.1.0-dev.1, -dev.2, … A new one appears when node image, services
or the set of Kubernetes versions in the cache changed. Node images pin the root of this repository.
"""

from __future__ import annotations

import dataclasses
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import constellation
from constellation.attestation.model import Variant
from constellation.crypto.signing import spki
from constellation.image.release_key import ensure_development_key
from constellation.image.statement import state_image
from constellation.releases.repository import LIFETIMES, ROLES, Repository, RoleKeys
from constellation.trust.release import (
    Release,
    dump_release,
    sign_release,
    version_order,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from constellation.image.store import NodeImage
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.release import ReleaseImage

__all__ = ["ensure_development_release", "ensure_development_repository", "release_of"]

_FIRST = "0.1.0"
_RENEW_AFTER = timedelta(days=1)
_ROOT_LIFETIME = timedelta(days=3650)
_PROVIDER = "local"


def ensure_development_repository(cache: Path, *, now: datetime) -> Repository:
    """Give the repository of this cache, made with the development key if there is none."""
    key = ensure_development_key(cache)
    repository = Repository(
        folder=cache / "releases" / "development",
        keys=(key,),
        now=now,
        lifetimes={**LIFETIMES, "root": _ROOT_LIFETIME},
    )
    public_key = spki(key.public_key())
    if repository.exists and public_key not in repository.public_keys("root"):
        shutil.rmtree(repository.folder)  # of a key that is gone
    if not repository.exists:
        repository.create({r: RoleKeys(public_keys=(public_key,), threshold=1) for r in ROLES})
    return repository


def ensure_development_release(
    repository: Repository,
    *,
    image: NodeImage,
    services: NodeImage,
    kubernetes: Mapping[str, ArtifactList],
) -> str:
    """Have a release of exactly this in the repository; gives its version."""
    newest = repository.newest()
    version = newest.version if newest is not None else f"{constellation.__version__}-dev.1"
    release = release_of(
        version,
        image=image,
        services=services,
        kubernetes=kubernetes,
        created=int(repository.now.timestamp()),
    )
    if newest is not None:
        if dataclasses.replace(release, created=newest.created) == newest:
            if repository.signed_at() + _RENEW_AFTER < repository.now:
                repository.renew()
            return version
        release = dataclasses.replace(release, version=_following(newest.version))
    data = dump_release(release)
    (key,) = repository.keys
    return repository.publish(data, sign_release(data, key))


def release_of(
    version: str,
    *,
    image: NodeImage,
    services: NodeImage,
    kubernetes: Mapping[str, ArtifactList],
    created: int,
    minimum_version: str = _FIRST,
    withdrawn: tuple[str, ...] = (),
    more: tuple[ReleaseImage, ...] = (),
) -> Release:
    """State what was built here as a release; `created` is in seconds since 1970.

    `image` is the local cloud's, `more` are images for other providers.
    """
    return Release(
        format=1,
        version=version,
        created=created,
        images=(
            state_image(image, provider=_PROVIDER, variant=Variant.LOCAL_VTPM),
            *more,
        ),
        services_bundle=services.manifest.sha256,
        kubernetes=dict(kubernetes),
        minimum_version=minimum_version,
        withdrawn=withdrawn,
    )


def _following(version: str) -> str:
    """Give the next development version: of this program's version if that is newer."""
    own, (major, minor, patch, _, number) = constellation.__version__, version_order(version)
    if version_order(f"{own}-dev.1") > version_order(version):
        return f"{own}-dev.1"
    return f"{major}.{minor}.{patch}-dev.{number + 1}"
