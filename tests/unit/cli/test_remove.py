"""What `mini down` takes away, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict
from constellation.cli.remove import check_purge, purge, remove_files
from constellation.config.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = b"version: 1\n"


def test_the_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    workspace = Workspace(folder=tmp_path / "w")
    workspace.folder.mkdir()
    workspace.config.write_bytes(EXAMPLE)
    workspace.master_secret.write_bytes(b"{}")
    (workspace.folder / ".constellation.lock").touch()
    removed, kept = remove_files(workspace, example=EXAMPLE)
    assert removed == tuple(map(str, (workspace.master_secret, workspace.config, workspace.folder)))
    assert kept == ()
    assert not workspace.folder.exists()


@pytest.mark.parametrize("theirs", ["notes.txt", ".hidden"])
def test_what_is_not_ours_stays_and_is_named(tmp_path: Path, theirs: str) -> None:
    workspace = Workspace(folder=tmp_path)
    workspace.config.write_bytes(EXAMPLE + b"name: mine\n")
    (tmp_path / theirs).touch()
    removed, kept = remove_files(workspace, example=EXAMPLE)
    assert removed == ()
    assert set(kept) == {str(workspace.config), str(tmp_path / theirs)}


def test_purge_removes_folders_that_go_made_read_only(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    module = cache / "go" / "mod" / "example@v1"
    module.mkdir(parents=True)
    (module / "go.mod").touch()
    module.chmod(0o500)
    module.parent.chmod(0o500)
    assert purge(cache)
    assert not cache.exists()
    assert not purge(cache)


def test_the_cache_stays_while_another_cluster_needs_it(tmp_path: Path) -> None:
    clusters = {"mini-a": tmp_path, "mini-b": tmp_path / "gone"}
    with pytest.raises(Conflict, match="mini-a"):
        check_purge(tmp_path, clusters=clusters, gone=())
    check_purge(tmp_path, clusters=clusters, gone=("mini-a",))
