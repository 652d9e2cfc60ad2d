"""How a cloud's own components become what a release names: images built here, objects around them.

The images are built from the pinned Go modules to the digests of the lock; the objects are ours
(`artifacts/cloud-PROVIDER/objects.json`), name each image as its recipe does, and get the one thing
that is the publisher's: where it is pulled from, always with its digest. Their reasons:
docs/how-to/cloud-components.md.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from constellation.base.errors import FormatError, UserError
from constellation.base.files import lock
from constellation.releases import lock as locks
from constellation.releases import source
from constellation.releases.clouds import CLOUDS
from constellation.releases.oci import read_manifest_digest
from constellation.releases.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.releases.lock import Lock

__all__ = ["Component", "ComponentImage", "ensure_component", "with_images"]

_REGISTRY: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?(?:/[a-z0-9][a-z0-9._-]{0,127}){0,7}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentImage:
    """An OCI archive to push.

    `name`: what the image is to be called in the publisher's registry; `reference`: the same, as
    the objects name it, by digest.
    """

    archive: Path
    name: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A cloud's components as their publisher needs them: images, and the file for the release."""

    images: tuple[ComponentImage, ...]
    objects: bytes


async def ensure_component(
    provider: str,
    *,
    registry: str,
    cache: Path,
    report: Report,
    packaged: Lock | None = None,
) -> Component:
    """Have a cloud's components in the cache, built from source to the lock's digests.

    Args:
        provider: "aws".
        registry: where nodes will pull the images from, "registry.example.com/team".
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
    images = {
        image.reference: await asyncio.to_thread(
            _pushed, store.path(made[image.reference].sha256), image.reference, registry
        )
        for image in recipe.images
    }
    template = locks.artifacts_folder() / recipe.objects
    objects = with_images(await asyncio.to_thread(template.read_bytes), images)
    return Component(images=tuple(images.values()), objects=objects)


def _pushed(archive: Path, reference: str, registry: str) -> ComponentImage:
    name = f"{registry}/{reference.rpartition('/')[2]}"
    digest = read_manifest_digest(archive)
    return ComponentImage(archive=archive, name=name, reference=f"{name}@sha256:{digest}")


def with_images(template: bytes, images: Mapping[str, ComponentImage]) -> bytes:
    """Put the publisher's image wherever objects name one of ours (`images`: by that name).

    Raises:
        FormatError: a container names another one, or an image is of no container.
    """
    listed = json.loads(template)
    unused = set(images)
    for container in _containers(listed):
        wanted = container["image"]
        if wanted not in images:
            raise FormatError(f"objects: found image {wanted[:120]!r}, expected one that is built")
        container["image"] = images[wanted].reference
        unused.discard(wanted)
    if unused:
        raise FormatError(f"objects: no container has image {min(unused)}")
    return (json.dumps(listed, indent=1) + "\n").encode()


def _containers(listed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in listed["items"]:
        pods = item.get("spec", {}).get("template", {}).get("spec", {})
        for field in ("initContainers", "containers"):
            yield from pods.get(field, ())
