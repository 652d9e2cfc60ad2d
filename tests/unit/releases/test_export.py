"""A folder for web servers holds files by digest, and only right ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from constellation.base.digest import WrongDigest
from constellation.base.errors import Unavailable
from constellation.base.progress import silent
from constellation.releases.export import export, missing
from constellation.releases.store import Store
from tests.fakes.file_servers import artifact_of

if TYPE_CHECKING:
    from pathlib import Path

KUBELET, CONTENT = b"kubelet's bytes", b"a squashfs"
LIST = (artifact_of(KUBELET, "kubelet"), artifact_of(CONTENT, "content"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "cache")
    for data, artifact in zip((KUBELET, CONTENT), LIST, strict=True):
        with made.staging() as folder:
            (folder / "file").write_bytes(data)
            made.put(folder / "file", name=artifact.name, expected=artifact.sha256)
    return made


async def test_files_lie_by_digest_and_anybody_may_read_them(store: Store, tmp_path: Path) -> None:
    folder, usual = tmp_path / "www", os.umask(0o077)
    try:
        assert await export(LIST, store=store, folder=folder, report=silent) == 2
    finally:
        os.umask(usual)
    assert {p.name: p.read_bytes() for p in (folder / "sha256").iterdir()} == {
        LIST[0].sha256: KUBELET, LIST[1].sha256: CONTENT,
    }  # fmt: skip
    assert {p.stat().st_mode & 0o777 for p in (folder / "sha256").iterdir()} == {0o644}
    assert (folder / "sha256").stat().st_mode & 0o777 == 0o755
    assert await export(LIST, store=store, folder=folder, report=silent) == 0, "again: nothing"


async def test_a_damaged_copy_is_made_again(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "www"
    await export(LIST, store=store, folder=folder, report=silent)
    (folder / "sha256" / LIST[0].sha256).write_bytes(b"Kubelet's bytes")
    assert await export(LIST, store=store, folder=folder, report=silent) == 1
    assert (folder / "sha256" / LIST[0].sha256).read_bytes() == KUBELET


@pytest.mark.parametrize("damaged", [b"Kubelet's bytes", b"kubelet's bytes and more", b""])
async def test_what_the_cache_has_damaged_is_not_handed_on(
    store: Store, tmp_path: Path, damaged: bytes
) -> None:
    path = store.path(LIST[0].sha256)
    path.chmod(0o755)
    path.write_bytes(damaged)
    with pytest.raises(WrongDigest, match="artifact kubelet"):
        await export(LIST[:1], store=store, folder=tmp_path / "www", report=silent)
    assert not list((tmp_path / "www/sha256").iterdir())


async def test_what_is_not_in_the_cache_is_named(store: Store, tmp_path: Path) -> None:
    other = artifact_of(b"other", "other")
    assert missing((*LIST, other), store=store) == (other,)
    with pytest.raises(Unavailable, match=r"artifact other: .*No such file"):
        await export((other,), store=store, folder=tmp_path / "www", report=silent)
