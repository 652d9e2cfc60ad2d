"""The initial RAM disk: what is packed is unpacked by cpio's own rules, and nothing else counts."""

from __future__ import annotations

import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError
from constellation.image.initrd import pack_initrd
from constellation.image.machine_files import linked_entries, module_names
from constellation.image.sources import os_folder
from constellation.image.tree import Entry

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = (
    Entry(path="init", data=b"#!/bin/sh\n", executable=True),
    Entry(path="bin/sh", link="busybox"),
    Entry(path="lib/deep/file", data=b"12345"),
)


def unpacked(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a newc archive: path -> mode and content."""
    found, offset = {}, 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        assert (fields[2], fields[3], fields[5]) == (0, 0, 0)  # owner, group, time
        start = offset + 110
        name = data[start : start + name_size - 1].decode()
        body = start + name_size + -(start + name_size) % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[body : body + size])
        offset = body + size + -(body + size) % 4


def test_files_links_and_folders_are_where_they_belong() -> None:
    found = unpacked(pack_initrd(ENTRIES, folders=("proc",)))
    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["lib/deep/file"] == (stat.S_IFREG | 0o644, b"12345")
    folders = {path for path, (mode, _) in found.items() if stat.S_ISDIR(mode)}
    assert folders == {"bin", "lib", "lib/deep", "proc"}
    paths = list(found)
    assert all(paths.index(p.rpartition("/")[0]) < paths.index(p) for p in paths if "/" in p)


def test_the_order_of_entries_changes_no_byte() -> None:
    assert pack_initrd(ENTRIES, folders=()) == pack_initrd(ENTRIES[::-1], folders=())


@pytest.mark.parametrize("text", ["dm mod\n", "dm-mod\ndm-mod\n", "../x\n"])
def test_a_list_of_modules_has_names_once(text: str) -> None:
    with pytest.raises(FormatError, match="list of modules"):
        module_names(text)


def test_the_first_program_is_a_script_that_a_shell_can_read() -> None:
    init = os_folder() / "machine/init"
    subprocess.run(["sh", "-n", init], check=True, timeout=20)
    assert init.stat().st_mode & 0o100


def test_the_modules_that_open_the_root_come_after_what_they_need() -> None:
    names = module_names((os_folder() / "machine/modules.txt").read_text())
    order = ("dm-mod", "dm-bufio", "reed_solomon", "dm-verity", "squashfs", "overlay")
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    assert names.index("sha256-ssse3") < names.index("dm-verity")


def test_the_shell_has_every_applet_that_the_first_program_names() -> None:
    from constellation.image.machine_files import _APPLETS  # noqa: PLC0415 - one private list

    text = (os_folder() / "machine/init").read_text()
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for applet in _APPLETS:
        assert applet == "sh" or re.search(rf"\b{applet}\b", body), applet


def test_links_of_a_folder_stay_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/d").write_text("y")
    assert linked_entries(tmp_path, below="etc") == (
        Entry(path="etc/a", data=b"x"),
        Entry(path="etc/b", link="a"),
        Entry(path="etc/c/d", data=b"y"),
    )
