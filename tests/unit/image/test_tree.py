"""Tar streams that depend on names, contents and one time."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from constellation.image.root_build import prune, write_tree
from constellation.image.tree import END, Entry, pack

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = (
    Entry(path="usr/bin/b", data=b"two", executable=True),
    Entry(path="usr/bin/a", data=b"one"),
    Entry(path="etc/link", link="../usr/bin/a"),
)


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def test_order_of_entries_does_not_matter() -> None:
    one = pack(ENTRIES, time=7, existing=frozenset())
    assert one == pack(ENTRIES[::-1], time=7, existing=frozenset())


def test_streams_joined_are_one_archive_and_folders_come_once() -> None:
    first = pack(ENTRIES, time=7, existing=frozenset())
    more = pack((Entry(path="usr/bin/c"),), time=7, existing=frozenset({"usr", "usr/bin"}))
    found = members(first + more + END)
    names = [m.name for m in found]
    assert names == ["etc", "etc/link", "usr", "usr/bin", "usr/bin/a", "usr/bin/b", "usr/bin/c"]
    assert {(m.uid, m.gid, m.mtime) for m in found} == {(0, 0, 7)}
    assert {m.name: m.mode for m in found if m.isfile()}["usr/bin/b"] == 0o755


def test_a_written_tree_has_hard_links_and_modes_and_only_the_given_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "s").symlink_to("nowhere")
    (tmp_path / "d").mkdir(mode=0o700)
    output = io.BytesIO()
    write_tree(tmp_path, output, time=5)
    found = {m.name: m for m in members(output.getvalue() + END)}
    assert found["b"].islnk()
    assert found["b"].linkname == "a"
    assert found["s"].linkname == "nowhere"
    assert found["d"].mode == 0o700
    assert {m.mtime for m in found.values()} == {5}
    assert len(output.getvalue()) % 512 == 0


def test_pruning_removes_folders_files_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/mtab").symlink_to("/gone")
    (tmp_path / "etc/kept").write_text("")
    prune(tmp_path, ("etc/apt", "etc/mtab"))
    assert sorted(p.name for p in (tmp_path / "etc").iterdir()) == ["kept"]
    assert (tmp_path / "proc").is_dir()
