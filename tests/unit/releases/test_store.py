from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from constellation.base.digest import WrongDigest
from constellation.releases.store import Store

if TYPE_CHECKING:
    from pathlib import Path

SHA256 = hashlib.sha256(b"good").hexdigest()


def _put(cache: Path, content: bytes = b"good", expected: str | None = SHA256) -> Store:
    store = Store(cache)
    with store.staging() as folder:
        (folder / "file").write_bytes(content)
        store.put(folder / "file", name="kubelet", expected=expected)
    return store


def _damage(path: Path, *, keep_time: bool) -> None:
    before = path.stat()
    path.chmod(0o755)
    path.write_bytes(b"evil")
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_is_found_by_its_digest_and_is_executable(tmp_path: Path) -> None:
    store = _put(tmp_path)
    assert store.has(SHA256, size_bytes=4)
    assert store.path(SHA256).read_bytes() == b"good"
    assert store.path(SHA256).stat().st_mode & 0o777 == 0o555
    assert not list(tmp_path.glob(".staging-*"))


def test_another_file_is_refused_with_both_digests_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(WrongDigest, match=f"kubelet: SHA-256 expected {SHA256}, found "):
        _put(tmp_path, b"evil")
    assert not list((tmp_path / "sha256").glob("*"))


def test_a_damaged_file_is_removed(tmp_path: Path) -> None:
    store = _put(tmp_path)
    _damage(store.path(SHA256), keep_time=False)
    assert not Store(tmp_path).has(SHA256)
    assert not store.path(SHA256).exists()


def test_a_full_check_finds_what_size_and_time_hide(tmp_path: Path) -> None:
    store = _put(tmp_path)
    _damage(store.path(SHA256), keep_time=True)
    assert Store(tmp_path).has(SHA256)
    assert Store(tmp_path).verify() == (SHA256,)
    assert not Store(tmp_path).has(SHA256)


def test_a_file_of_another_size_than_the_locks_is_not_the_one(tmp_path: Path) -> None:
    assert not _put(tmp_path).has(SHA256, size_bytes=5)


@pytest.mark.parametrize("index", [b"", b"junk", b'{"files":{"x":1}}'])
def test_a_damaged_index_only_costs_time(tmp_path: Path, index: bytes) -> None:
    _put(tmp_path)
    (tmp_path / "index.json").write_bytes(index)
    assert Store(tmp_path).has(SHA256)
    assert SHA256.encode() in (tmp_path / "index.json").read_bytes()
