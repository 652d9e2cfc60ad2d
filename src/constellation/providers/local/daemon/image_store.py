"""The images of one cloud, on disk: blobs by their digest, and what names stand for.

`blobs/HEX` has the bytes whose SHA-256 is HEX: they are hashed while they are written and get that
name only then. `names.json` says which document a name means, and whether a person loaded it
(which then counts for ever) or it was pulled from its registry (which may have a newer one).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from constellation.base import decode
from constellation.base.digest import WrongDigest
from constellation.base.errors import Conflict, FormatError, Unavailable
from constellation.base.files import write_atomic
from constellation.providers.local.image_documents import (
    MAX_DOCUMENT_BYTES,
    Document,
    Reference,
    parse_document,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BLOB_BYTES", "ImageStore", "Named", "Receiver"]

MAX_BLOB_BYTES = 16 * 1024**3
_MAX_NAMES = 10_000
_MAX_INDEX_BYTES = 8 * 1024 * 1024
_FREE_BYTES = 1024**3  # left for nodes' disks and logs
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What one name stands for; `loaded` by a person, else pulled."""

    registry: str
    repository: str
    tag: str
    sha256: str
    loaded: bool

    @property
    def reference(self) -> Reference:
        """Give the name alone."""
        return Reference(registry=self.registry, repository=self.repository, tag=self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    names: tuple[Named, ...]


class Receiver:
    """Takes one blob's bytes; `finish` gives them their name if they are what was announced."""

    def __init__(self, file: BinaryIO, *, sha256: str, size_bytes: int) -> None:
        self._file, self._sha256, self._size = file, sha256, size_bytes
        self._digest, self._found = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises FormatError: more came than announced."""
        self._found += len(data)
        if self._found > self._size:
            raise FormatError(f"blob {self._sha256}: more than {self._size} bytes")
        self._digest.update(data)
        self._file.write(data)

    def check(self) -> None:
        """Say whether all of it is there. Raises WrongDigest, FormatError."""
        if self._found != self._size:
            raise FormatError(f"blob {self._sha256}: {self._found} of {self._size} bytes")
        if self._digest.hexdigest() != self._sha256:
            raise WrongDigest(
                "blob", expected=f"sha256:{self._sha256}", found=self._digest.hexdigest()
            )


class ImageStore:
    """The store in one folder; one process writes there."""

    def __init__(self, folder: Path) -> None:
        self._blobs, self._incoming = folder / "blobs", folder / "incoming"
        self._file = folder / "names.json"
        self._names: dict[Reference, Named] = {}

    def open(self) -> None:
        """Make the folders, drop what an earlier process did not finish, read the names."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        for folder in (self._blobs, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            data = self._file.read_bytes()
            found = decode.load(_Names, data, what=str(self._file), max_bytes=_MAX_INDEX_BYTES)
            self._names = {n.reference: n for n in found.names}

    def path(self, sha256: str) -> Path:
        """Give where a blob lies, or would."""
        return self._blobs / sha256

    def has(self, sha256: str) -> bool:
        """Say whether a blob is there."""
        return self.path(sha256).is_file()

    def document(self, sha256: str) -> tuple[bytes, Document]:
        """Read an index or a manifest. Raises FormatError, Unavailable."""
        try:
            with self.path(sha256).open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise Unavailable(f"no image document sha256:{sha256}") from None
        return data, parse_document(data)

    def find(self, reference: Reference) -> Named | None:
        """Say what a name stands for."""
        return self._names.get(reference)

    def tags(self, registry: str, repository: str) -> tuple[str, ...]:
        """List the tags of a repository."""
        wanted = (registry, repository)
        return tuple(sorted(r.tag for r in self._names if (r.registry, r.repository) == wanted))

    @contextlib.contextmanager
    def receive(self, sha256: str, size_bytes: int) -> Iterator[Receiver]:
        """Take a blob of `size_bytes`; it is there once the block ends without an error.

        Raises:
            FormatError, WrongDigest: other bytes came; nothing of them is kept.
            Conflict: it is larger than 16 GiB, or the disk has no room.
        """
        self.ensure_room(size_bytes)
        handle, name = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                receiver = Receiver(cast("BinaryIO", file), sha256=sha256, size_bytes=size_bytes)
                yield receiver
                receiver.check()
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(name).replace(self.path(sha256))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def ensure_room(self, size_bytes: int) -> None:
        """Say whether so much more fits. Raises Conflict."""
        free = shutil.disk_usage(self._blobs).free
        if size_bytes > MAX_BLOB_BYTES or size_bytes + _FREE_BYTES > free:
            raise Conflict(
                f"no room for an image blob of {size_bytes} bytes in {self._blobs}",
                hint=f"{free} bytes are free; {_FREE_BYTES} stay free; 16 GiB a blob at most",
            )

    def ensure_complete(self, sha256: str) -> None:
        """Check that an image, or one image of an index, is here with all it names.

        Raises:
            FormatError: a document cannot be read, or a size is another one.
            Conflict: something is missing; the message says what.
        """
        if missing := self._missing(sha256, depth=0):
            raise Conflict(f"image sha256:{sha256} lacks {missing}")

    def _missing(self, sha256: str, *, depth: int) -> str:
        if not self.has(sha256) or depth > _MAX_DEPTH:
            return f"sha256:{sha256}"
        _, document = self.document(sha256)
        if document.is_index:
            lacks = [self._missing(c.sha256, depth=depth + 1) for c in document.children]
            # one platform is enough, the others' may have stayed away
            return "" if "" in lacks else next(iter(lacks), "a manifest")
        for child in document.children:
            if not self.has(child.sha256):
                return f"sha256:{child.sha256}"
            found = self.path(child.sha256).stat().st_size
            if found != child.size_bytes:
                raise FormatError(
                    f"image sha256:{sha256}: sha256:{child.sha256} has {found} bytes, "
                    f"want {child.size_bytes}"
                )
        return ""

    def name(self, reference: Reference, sha256: str, *, loaded: bool) -> None:
        """Let a name stand for a document that is here. Raises Conflict: too many names."""
        if reference not in self._names and len(self._names) >= _MAX_NAMES:
            raise Conflict(f"the registry has {_MAX_NAMES} names already")
        named = Named(
            registry=reference.registry,
            repository=reference.repository,
            tag=reference.tag,
            sha256=sha256,
            loaded=loaded,
        )
        if self._names.get(reference) == named:
            return
        self._names[reference] = named
        ordered = sorted(self._names.values(), key=lambda n: str(n.reference))
        write_atomic(self._file, decode.dump(_Names(names=tuple(ordered))))
