"""Where artifacts lie: in a folder of files named by their SHA-256, each whole or not there.

`has` is cheap: a file whose size and modification time are those of its last full check is taken
for unchanged; any other is hashed, and removed if it is not what its name says. `verify` hashes
all of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.digest import WrongDigest, digest_of
from constellation.base.errors import FormatError
from constellation.base.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Store"]

_INDEX_MAX_BYTES = 4 * 1024 * 1024
_HEX_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    files: dict[str, _Checked] = field(default_factory=dict)


class Store:
    """The folder `cache`/sha256 and its index `cache`/index.json."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._folder = cache / "sha256"
        self._index_path = cache / "index.json"
        self._index = _read_index(self._index_path)

    def path(self, sha256: str) -> Path:
        """Give where the file of that digest lies, or would lie."""
        return self._folder / sha256

    def has(self, sha256: str, *, size_bytes: int | None = None) -> bool:
        """Say whether the file is there and whole; a damaged one is removed."""
        path = self.path(sha256)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        checked = _Checked(size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
        whole = self._index.get(sha256) == checked or digest_of(path) == sha256
        if not whole or size_bytes not in (None, stat.st_size):
            self._forget(sha256)
            return False
        self._remember(sha256)
        return True

    def put(self, file: Path, *, name: str, expected: str | None) -> tuple[str, int]:
        """Move a file of the same file system in; give its SHA-256 and size.

        Raises:
            WrongDigest: it is not the expected one; the file is removed.
        """
        found = digest_of(file)
        if expected is not None and found != expected:
            file.unlink()
            raise WrongDigest(name, expected=expected, found=found)
        self._folder.mkdir(parents=True, exist_ok=True)
        # executable, so that a program runs from here; not writable, so that nobody changes it
        file.chmod(0o555)
        file.replace(self.path(found))
        self.give_to_owner(self._folder, self.path(found))
        self._remember(found)
        return found, self.path(found).stat().st_size

    def verify(self) -> tuple[str, ...]:
        """Hash every file; remove the damaged ones and give the digests that they should have."""
        damaged: list[str] = []
        for path in sorted(self._folder.glob("*")):
            if len(path.name) == _HEX_DIGITS and digest_of(path) != path.name:
                self._forget(path.name)
                damaged.append(path.name)
        return tuple(damaged)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Lend a folder on the store's file system; it is removed afterwards."""
        self.cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.cache, prefix=".staging-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def give_to_owner(self, *paths: Path) -> None:
        """Where root works in a user's cache: give files to the owner of the cache folder."""
        if os.geteuid() == 0:
            owner = self.cache.stat()
            for path in paths:
                os.chown(path, owner.st_uid, owner.st_gid)

    def _write_index(self) -> None:
        write_atomic(self._index_path, decode.dump(_Index(files=self._index)))
        self.give_to_owner(self._index_path)

    def _remember(self, sha256: str) -> None:
        stat = self.path(sha256).stat()
        checked = _Checked(size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
        if self._index.get(sha256) != checked:
            self._index[sha256] = checked
            self._write_index()

    def _forget(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)
        if self._index.pop(sha256, None) is not None:
            self._write_index()


def _read_index(path: Path) -> dict[str, _Checked]:
    # the index only saves work: one that cannot be read is made again
    try:
        data = path.read_bytes()
        return decode.load(_Index, data, what=str(path), max_bytes=_INDEX_MAX_BYTES).files
    except (FileNotFoundError, FormatError):
        return {}
