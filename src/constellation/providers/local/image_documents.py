"""What an image is called, and what its documents name (pure).

Sources: OCI Distribution Specification 1.1 ("Pulling manifests": grammar of names and tags), OCI
Image Format Specification 1.1 (manifest.md, image-index.md), Docker Image Manifest V2, Schema 2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from constellation.base.errors import FormatError

__all__ = [
    "DIGEST",
    "MAX_DOCUMENT_BYTES",
    "MEDIA_TYPES",
    "REGISTRY",
    "REPOSITORY",
    "TAG",
    "Descriptor",
    "Document",
    "Reference",
    "parse_document",
    "parse_object",
    "parse_reference",
]

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""The specification lets a registry refuse larger manifests."""

_MAX_CHILDREN = 512
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"(?=.{{1,255}}\Z){_PART}(?:/{_PART})*")
REGISTRY = re.compile(r"(?=.{1,255}\Z)[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?")
_DEFAULT_REGISTRY, _DEFAULT_FOLDER, _DEFAULT_TAG = "docker.io", "library/", "latest"

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_INDEX_TYPES = frozenset({_OCI_INDEX, _DOCKER_LIST})
_MANIFEST_TYPES = frozenset({_OCI_MANIFEST, _DOCKER_MANIFEST})
MEDIA_TYPES = (_OCI_INDEX, _DOCKER_LIST, _OCI_MANIFEST, _DOCKER_MANIFEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image's full name: registry (host or host:port), repository, tag."""

    registry: str
    repository: str
    tag: str

    def __str__(self) -> str:
        """Give it as a pod names it."""
        return f"{self.registry}/{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a document names: media type, SHA-256 (hexadecimal), size in bytes."""

    media_type: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An index (children: manifests or indexes) or a manifest (children: config, then layers)."""

    media_type: str
    is_index: bool
    children: tuple[Descriptor, ...]


def parse_reference(text: str) -> Reference:
    """Read `web`, `web:1` or `registry.example/team/web:1` as container engines do.

    Raises:
        FormatError: no such name; one with a digest.
    """
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        name, tag = text, _DEFAULT_TAG
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, repository = first, rest
    else:
        registry, repository = _DEFAULT_REGISTRY, name
    if registry == _DEFAULT_REGISTRY and "/" not in repository:
        repository = _DEFAULT_FOLDER + repository
    found = Reference(registry=registry, repository=repository, tag=tag)
    if not (
        REGISTRY.fullmatch(registry) and REPOSITORY.fullmatch(repository) and TAG.fullmatch(tag)
    ):
        raise FormatError(f"{text[:120]!r} is no image name", hint="such as example.org/web:1")
    return found


def parse_document(data: bytes) -> Document:
    """Read an index or a manifest of at most 4 MiB.

    Raises:
        FormatError: neither; more than 512 entries; a digest that is not SHA-256.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise FormatError(f"image document: {len(data)} bytes")
    value = parse_object(data, what="image document")
    is_index = "manifests" in value
    named = value.get("mediaType", _OCI_INDEX if is_index else _OCI_MANIFEST)
    if named not in (_INDEX_TYPES if is_index else _MANIFEST_TYPES):
        raise FormatError(f"image document: media type {str(named)[:80]!r}")
    entries = value.get("manifests") if is_index else value.get("layers")
    if not isinstance(entries, list) or len(entries) > _MAX_CHILDREN:
        raise FormatError(f"image document: no list of at most {_MAX_CHILDREN} entries")
    if not is_index:
        entries = [value.get("config"), *entries]
    return Document(
        media_type=named, is_index=is_index, children=tuple(_descriptor(e) for e in entries)
    )


def parse_object(data: bytes, *, what: str) -> dict[str, Any]:
    """Read a JSON object that others wrote: unknown keys are theirs. Raises FormatError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise FormatError(f"{what}: not JSON") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what}: not an object")
    return value


def _descriptor(entry: Any) -> Descriptor:
    if not isinstance(entry, dict):
        raise FormatError("image document: a descriptor is no object")
    digest, size, media = entry.get("digest"), entry.get("size"), entry.get("mediaType")
    match = DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None or type(size) is not int or size < 0 or not isinstance(media, str):
        raise FormatError("image document: a descriptor without SHA-256, size or media type")
    return Descriptor(media_type=media, sha256=match[1], size_bytes=size)
