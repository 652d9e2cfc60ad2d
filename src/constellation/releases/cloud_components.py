"""How a cloud's own component becomes what a release names: an image built here, objects around it.

The image is built from the pinned Go module to the digest of the lock; the objects are ours
(`artifacts/cloud-PROVIDER/objects.json`) and get the one thing that is the publisher's: where the
image is pulled from, always with its digest. Their reasons: docs/how-to/cloud-components.md.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base.errors import UserError
from constellation.base.files import lock
from constellation.releases import lock as locks
from constellation.releases import source
from constellation.releases.oci import read_manifest_digest
from constellation.releases.recipes import CLOUDS
from constellation.releases.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.lock import Lock

__all__ = ["Component", "ensure_component"]

_REGISTRY: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?(?:/[a-z0-9][a-z0-9._-]{0,127}){0,7}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A component as its publisher needs it: an OCI archive to push, and the file for the release.

    `name`: what the image is to be called in the publisher's registry; `reference`: the same, as
    the objects name it, by digest.
    """

    archive: Path
    name: str
    reference: str
    objects: bytes


async def ensure_component(
    provider: str,
    *,
    registry: str,
    cache: Path,
    report: Report,
    packaged: Lock | None = None,
) -> Component:
    """Have a cloud's component in the cache, built from source to the lock's digests.

    Args:
        provider: "aws".
        registry: where nodes will pull the image from, "registry.example.com/team".
        cache: files go to `cache`/sha256/HEX.
        report: told what is built.
        packaged: the lock; None: the one that comes with the package.

    Raises:
        UserError: nothing is built for this provider, or the registry is no name of one.
        WrongDigest: a result is not what the lock says; it was not kept.
        Unavailable: the Go module proxy does not answer, or the build failed.
        Conflict: another process is filling the same cache.
    """
    packaged = packaged or locks.load()
    recipe, locked = CLOUDS.get(provider), packaged.clouds.get(provider)
    if recipe is None or locked is None:
        raise UserError(
            f"no component of {provider[:40]} is built here", hint=f"one of {', '.join(CLOUDS)}"
        )
    if not _REGISTRY.fullmatch(registry):
        raise UserError(
            f"expected a registry such as registry.example.com/team, found {registry[:80]!r}",
            where="--registry",
        )
    with lock(cache / "mirror.lock", what="the artifact cache"):
        store = Store(cache)
        store.give_to_owner(cache / "mirror.lock")
        made = await source.build_cloud(
            recipe, modules=locks.artifacts_folder(), wheel=packaged.toolchain,
            expected=locked.source, store=store, report=report,
        )  # fmt: skip
    archive = store.path(made[recipe.image.reference].sha256)
    digest = await asyncio.to_thread(read_manifest_digest, archive)
    name = f"{registry}/{recipe.image.reference.rpartition('/')[2]}"
    template = locks.artifacts_folder() / recipe.module.folder / "objects.json"
    reference = f"{name}@sha256:{digest}"
    objects = _with_image(await asyncio.to_thread(template.read_bytes), reference)
    return Component(archive=archive, name=name, reference=reference, objects=objects)


def _with_image(template: bytes, reference: str) -> bytes:
    """Put the image into every container that names none."""
    listed = json.loads(template)
    for item in listed["items"]:
        pods = item.get("spec", {}).get("template", {}).get("spec", {})
        for container in pods.get("containers", ()):
            container["image"] = container["image"] or reference
    return (json.dumps(listed, indent=1) + "\n").encode()
