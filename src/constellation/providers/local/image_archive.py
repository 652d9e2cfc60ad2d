"""What a user's image archive holds: an OCI layout or what `docker save` writes, in a tar file.

Nothing is unpacked: members are read by name, so no path in an archive can lead anywhere. Sizes and
counts are bounded; gzip around the whole is undone first. Sources: OCI Image Format Specification
1.1 (image-layout.md; annotations), Docker Image Specification 1.2 (combined image JSON + file
system layout: manifest.json, RepoTags).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import posixpath
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from constellation.base.errors import ConstellationError, FormatError, UserError
from constellation.base.files import copy_digest
from constellation.providers.local.image_documents import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Reference,
    parse_document,
    parse_object,
    parse_reference,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Blob", "Image", "Named", "open_archive"]

_MAX_BYTES = 32 * 1024**3
_MAX_MEMBERS = 20_000
_MAX_READ_BYTES = 16 * 1024 * 1024
_MAX_LINKS = 8
_MAX_IMAGES = 100
_GZIP, _OTHERS = b"\x1f\x8b", {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FULL_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_NAME_HINT = "give it one with --name, such as --name web:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes by the SHA-256 (hexadecimal) that they are said to have; `open` reads them."""

    sha256: str
    size_bytes: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A name and the index or manifest that it stands for."""

    reference: Reference
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """All that an archive holds: what names need, in order, once each."""

    names: tuple[Named, ...]
    blobs: tuple[Blob, ...]


@contextlib.contextmanager
def open_archive(path: Path, *, name: str) -> Iterator[Image]:
    """Read an archive; its blobs can be opened while the block lasts.

    `name` replaces what the archive calls its only image; empty: as the archive says.

    Raises:
        UserError: it cannot be read, or has no name and none was given.
        FormatError: it is no such archive, or larger than it may be.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = _plain(stack.enter_context(path.open("rb")), stack)
            tar = stack.enter_context(
                tarfile.open(fileobj=cast("IO[bytes]", _Bounded(file)), mode="r:")
            )
            archive = _Archive(tar)
            image = _oci(archive, name) if archive.has("index.json") else _docker(archive, name)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from error
        except (tarfile.TarError, EOFError) as error:
            raise FormatError(f"{path}: no image archive: {error}") from error
        except ConstellationError as error:
            raise type(error)(f"{path}: {error}", hint=error.hint) from error
        yield image


class _Bounded(io.RawIOBase):
    """A file that refuses large single reads: tarfile reads a header of any size at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            raise FormatError(f"a tar header of {size} bytes")
        return self._file.read(size)

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Archive:
    """Members by name, without a leading `./`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members: dict[str, tarfile.TarInfo] = {}
        for count, member in enumerate(tar):
            if count >= _MAX_MEMBERS:
                raise FormatError(f"more than {_MAX_MEMBERS} members")
            if not member.isdir():
                self._members[posixpath.normpath(member.name)] = member

    def has(self, name: str) -> bool:
        return name in self._members

    def member(self, name: str) -> tarfile.TarInfo:
        """Find a regular file, through links within the archive (docker save repeats layers so)."""
        for _ in range(_MAX_LINKS):
            member = self._members.get(posixpath.normpath(name))
            if member is None:
                break
            if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
                return member
            if member.issym():
                name = posixpath.join(posixpath.dirname(member.name), member.linkname)
            elif member.islnk():
                name = member.linkname
            else:
                break
        raise FormatError(f"it lacks the file {name[:120]!r}")

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        return cast("IO[bytes]", self._tar.extractfile(member))

    def read(self, name: str) -> bytes:
        member = self.member(name)
        if member.size > MAX_DOCUMENT_BYTES:
            raise FormatError(f"{name[:120]}: {member.size} bytes")
        with self.open(member) as file:
            return file.read(MAX_DOCUMENT_BYTES)

    def blob(self, name: str, sha256: str) -> Blob:
        member = self.member(name)
        return Blob(sha256=sha256, size_bytes=member.size, open=partial(self.open, member))


def _plain(file: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    """Undo gzip into a temporary file, so that members can be read in any order."""
    start = file.read(8)
    file.seek(0)
    for magic, kind in _OTHERS.items():
        if start.startswith(magic):
            raise FormatError(f"compressed by {kind}", hint=f"undo it first: {kind} -d")
    if not start.startswith(_GZIP):
        return file
    target = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    with gzip.open(file) as source:
        _, size = copy_digest(cast("Any", source), cast("Any", target), max_bytes=_MAX_BYTES)
    if size > _MAX_BYTES:
        raise FormatError(f"more than {_MAX_BYTES} bytes without gzip")
    target.seek(0)
    return cast("IO[bytes]", target)


def _path(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def _oci(archive: _Archive, name: str) -> Image:
    data = archive.read("index.json")
    entries = parse_object(data, what="index.json").get("manifests")
    top = parse_document(data).children
    if not isinstance(entries, list) or not 0 < len(top) <= _MAX_IMAGES:
        raise FormatError(f"index.json: {len(top)} images, want 1 to {_MAX_IMAGES}")
    blobs: dict[str, Blob] = {}
    for descriptor in top:
        _collect(archive, descriptor, blobs, depth=0)
    if name:
        _only(top, "index.json")
        names = [Named(reference=parse_reference(name), sha256=top[0].sha256)]
    else:
        names = [
            Named(reference=parse_reference(text), sha256=descriptor.sha256)
            for entry, descriptor in zip(entries, top, strict=True)
            if (text := _annotated(entry))
        ] or _by_repo_tags(archive, top)
    return _image(names, blobs)


def _collect(archive: _Archive, entry: Descriptor, blobs: dict[str, Blob], *, depth: int) -> None:
    """Take a manifest and all it names; of an index, the manifests that are there."""
    if entry.sha256 in blobs:
        return
    document = parse_document(archive.read(_path(entry.sha256)))
    if document.is_index and depth > 1:
        raise FormatError("an index in an index in an index")
    for child in document.children:
        path = _path(child.sha256)
        if not document.is_index:
            blobs.setdefault(child.sha256, archive.blob(path, child.sha256))
        elif archive.has(path):
            _collect(archive, child, blobs, depth=depth + 1)
    blobs[entry.sha256] = archive.blob(_path(entry.sha256), entry.sha256)


def _annotated(entry: dict[str, Any]) -> str:
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return ""
    full, reference = annotations.get(_FULL_NAME), annotations.get(_REF_NAME)
    if isinstance(full, str):
        return full
    # a bare word is a tag, and says nothing about what it is a tag of
    named = isinstance(reference, str) and ("/" in reference or ":" in reference)
    return str(reference) if named else ""


def _by_repo_tags(archive: _Archive, top: tuple[Descriptor, ...]) -> list[Named]:
    if len(top) != 1 or not archive.has("manifest.json"):
        return []
    return [
        Named(reference=parse_reference(tag), sha256=top[0].sha256)
        for entry in _saved(archive)
        for tag in _strings(entry, "RepoTags")
    ]


def _docker(archive: _Archive, name: str) -> Image:
    entries = _saved(archive)
    blobs: dict[str, Blob] = {}
    layers: dict[str, Descriptor] = {}
    names: list[Named] = []
    for entry in entries:
        sha256 = _saved_image(archive, entry, blobs, layers)
        tags = [name] if name else _strings(entry, "RepoTags")
        names += [Named(reference=parse_reference(tag), sha256=sha256) for tag in tags]
    if name:
        _only(entries, "manifest.json")
    return _image(names, blobs)


def _saved(archive: _Archive) -> list[dict[str, Any]]:
    try:
        value = json.loads(archive.read("manifest.json"))
    except (ValueError, RecursionError):
        raise FormatError("manifest.json: not JSON") from None
    good = isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if not good or not 0 < len(value) <= _MAX_IMAGES:
        raise FormatError(f"manifest.json: no list of 1 to {_MAX_IMAGES} images")
    return cast("list[dict[str, Any]]", value)


def _saved_image(
    archive: _Archive,
    entry: dict[str, Any],
    blobs: dict[str, Blob],
    layers: dict[str, Descriptor],
) -> str:
    """Make the manifest that `docker save` left out; give its SHA-256."""
    path = entry.get("Config")
    if not isinstance(path, str):
        raise FormatError("manifest.json: an image without Config")
    config = _bytes_blob(archive.read(path), blobs)
    for layer in (paths := _strings(entry, "Layers")):
        if layer not in layers:
            layers[layer] = _layer(archive, layer, blobs)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {
            "mediaType": _CONFIG,
            "digest": f"sha256:{config.sha256}",
            "size": config.size_bytes,
        },
        "layers": [
            {
                "mediaType": layers[p].media_type,
                "digest": f"sha256:{layers[p].sha256}",
                "size": layers[p].size_bytes,
            }
            for p in paths
        ],
    }
    data = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    return _bytes_blob(data, blobs).sha256


def _layer(archive: _Archive, path: str, blobs: dict[str, Blob]) -> Descriptor:
    member = archive.member(path)
    with archive.open(member) as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        digest, size = copy_digest(cast("Any", file), None, max_bytes=_MAX_BYTES)
    sha256 = digest.hex()
    blobs.setdefault(sha256, archive.blob(path, sha256))
    media_type = f"{_LAYER}+gzip" if packed else _LAYER
    return Descriptor(media_type=media_type, sha256=sha256, size_bytes=size)


def _bytes_blob(data: bytes, blobs: dict[str, Blob]) -> Blob:
    sha256 = hashlib.sha256(data).hexdigest()
    blob = Blob(sha256=sha256, size_bytes=len(data), open=partial(io.BytesIO, data))
    return blobs.setdefault(sha256, blob)


def _strings(entry: dict[str, Any], key: str) -> list[str]:
    value = entry.get(key) or []
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise FormatError(f"manifest.json: {key} is no list of names")
    return value


def _only(images: object, where: str) -> None:
    count = len(cast("list[object]", images))
    if count != 1:
        raise UserError(f"{where}: {count} images", hint="--name is for an archive of one image")


def _image(names: list[Named], blobs: dict[str, Blob]) -> Image:
    if not names:
        raise UserError("the archive does not say what its image is called", hint=_NAME_HINT)
    return Image(names=tuple(dict.fromkeys(names)), blobs=tuple(blobs.values()))
