from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Unavailable
from constellation.base.tools_root import command

if TYPE_CHECKING:
    from pathlib import Path


def _root(folder: Path) -> Path:
    libraries = folder / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "ld-linux-x86-64.so.2").write_bytes(b"")
    (folder / "usr/sbin").mkdir()
    (folder / "usr/bin").mkdir()
    (folder / "usr/bin/swtpm").write_bytes(b"")
    return folder


def test_a_program_runs_by_the_loader_of_its_own_root(tmp_path: Path) -> None:
    words = command(_root(tmp_path), "swtpm")
    assert words[0] == str(tmp_path / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    assert words[-1] == str(tmp_path / "usr/bin/swtpm")
    assert str(tmp_path / "usr/lib/x86_64-linux-gnu/swtpm") in words[2].split(":")


def test_an_absolute_link_stays_inside_the_root(tmp_path: Path) -> None:
    root = _root(tmp_path)
    (root / "usr/sbin/nft").symlink_to("/usr/bin/swtpm")
    assert command(root, "nft")[-1] == str(root / "usr/bin/swtpm")


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="program haproxy is missing"):
        command(_root(tmp_path), "haproxy")


def test_an_empty_folder_is_no_tools_root(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no tools root"):
        command(tmp_path, "swtpm")
