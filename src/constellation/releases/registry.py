"""How a published image is fetched: token, index by digest, manifest, blobs; packed as one file.

Source: OCI Distribution Specification 1.1 (pulling manifests and blobs). The index's digest is
known before; each document names the digest of the next, so nothing depends on the registry's word.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constellation.base.digest import WrongDigest
from constellation.base.errors import FormatError
from constellation.base.registry_session import RegistrySession
from constellation.releases.oci import Descriptor, image_index, write_layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PulledImage", "parse_descriptors", "pull"]

_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
_MAX_LAYER_BYTES = 2 * 1024**3
_MAX_LAYERS = 128
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """An image on disk: the manifest's descriptor, all blobs by digest, the layers in order."""

    manifest: Descriptor
    blobs: dict[str, bytes | Path]
    layers: tuple[Path, ...]

    def write(self, target: Path, *, reference: str) -> None:
        """Write it as an image layout in a tar file, named `reference`."""
        write_layout(target, index=image_index(reference, self.manifest), blobs=self.blobs)


async def pull(
    repository_url: str,
    *,
    sha256: str,
    folder: Path,
    on_bytes: Callable[[int, int], None],
) -> PulledImage:
    """Fetch the linux/amd64 image of an index into `folder`; blobs that are there are kept.

    Args:
        repository_url: `https://HOST/v2/NAME`.
        sha256: the index's digest.
        folder: where layers go, by digest.
        on_bytes: told bytes of bytes of the layer that comes.

    Raises:
        WrongDigest: something is not what the document before it says.
        FormatError: a document is not what the specification says, or has no linux/amd64.
        Unavailable: the registry does not answer.
    """
    session = _Session(repository_url)
    index = await session.document("manifests", sha256, accept=_INDEX_TYPES)
    found = [
        d for d, platform in parse_descriptors(index, "manifests") if platform == "linux/amd64"
    ]
    if len(found) != 1 or found[0].media_type not in _MANIFEST_TYPES:
        raise FormatError(f"{repository_url}: {len(found)} images for linux/amd64, want 1")
    manifest = await session.document("manifests", found[0].sha256, accept=_MANIFEST_TYPES)
    layers = tuple(d for d, _ in parse_descriptors(manifest, "layers"))
    (config,) = (d for d, _ in parse_descriptors(manifest, "config"))
    blobs: dict[str, bytes | Path] = {found[0].sha256: manifest}
    blobs[config.sha256] = await session.document("blobs", config.sha256, accept=())
    for layer in layers:
        path = folder / layer.sha256
        if not await asyncio.to_thread(_whole, path, layer.sha256):
            await session.blob(layer, path, on_bytes=on_bytes)
        blobs[layer.sha256] = path
    return PulledImage(
        manifest=Descriptor(
            media_type=found[0].media_type, sha256=found[0].sha256, size_bytes=len(manifest)
        ),
        blobs=blobs,
        layers=tuple(folder / layer.sha256 for layer in layers),
    )


class _Session:
    """One repository whose documents are known by their digests."""

    def __init__(self, url: str) -> None:
        self._url, self._inner = url, RegistrySession(url)

    async def document(self, kind: str, sha256: str, *, accept: tuple[str, ...]) -> bytes:
        path = f"{kind}/sha256:{sha256}"
        answer = await self._inner.document(path, accept=accept, max_bytes=_MAX_DOCUMENT_BYTES)
        found = hashlib.sha256(answer.body).hexdigest()
        if found != sha256:
            raise WrongDigest(f"{self._url}/{path}", expected=sha256, found=found)
        return answer.body

    async def blob(
        self, layer: Descriptor, path: Path, *, on_bytes: Callable[[int, int], None]
    ) -> None:
        if layer.size_bytes > _MAX_LAYER_BYTES:
            raise FormatError(f"{self._url}: a layer of {layer.size_bytes} bytes")
        await self._inner.blob(layer.sha256, path, max_bytes=layer.size_bytes, on_bytes=on_bytes)


def parse_descriptors(document: bytes, field: str) -> tuple[tuple[Descriptor, str], ...]:
    """Read the descriptors in one field of an index or manifest, each with "os/architecture".

    Raises:
        FormatError: not this JSON, more than 128, a digest that is not SHA-256, no size.
    """
    value = _object(document, what="image manifest").get(field)
    entries = [value] if isinstance(value, dict) else value
    if not isinstance(entries, list) or len(entries) > _MAX_LAYERS:
        raise FormatError(f"image manifest: {field} is not a list of at most {_MAX_LAYERS}")
    return tuple(_descriptor(entry, field) for entry in entries)


def _descriptor(entry: Any, field: str) -> tuple[Descriptor, str]:
    if not isinstance(entry, dict):
        raise FormatError(f"image manifest: {field}: not an object")
    digest, size, media = entry.get("digest"), entry.get("size"), entry.get("mediaType")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None or type(size) is not int or size < 0 or not isinstance(media, str):
        raise FormatError(f"image manifest: {field}: no digest, size or media type")
    platform = entry.get("platform")
    named = (
        f"{platform.get('os')}/{platform.get('architecture')}" if isinstance(platform, dict) else ""
    )
    return Descriptor(media_type=media, sha256=match[1], size_bytes=size), named


def _object(data: bytes, *, what: str) -> dict[str, Any]:
    # other people's documents: unknown fields are theirs, so base.decode is too strict
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise FormatError(f"{what}: not JSON") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what}: not an object")
    return value


def _whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
