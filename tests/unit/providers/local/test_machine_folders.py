from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.base.digest import WrongDigest
from constellation.providers.local.daemon import cgroups, run_folders
from constellation.providers.local.daemon.device_rules import refusals
from constellation.providers.local.daemon.images import Image, Images

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_that_were_missing_go_with_the_last_cloud(tmp_path: Path) -> None:
    root, there = tmp_path / "constellation", tmp_path / "there"
    there.mkdir()
    wanted = (there / "a/b", tmp_path / "c", there)
    with run_folders.held(run_root=root):
        run_folders.make(wanted, run_root=root)
        run_folders.make(wanted, run_root=root)
    assert all(folder.is_dir() for folder in wanted)
    (root / "mini").mkdir()
    with run_folders.held(run_root=root):
        run_folders.give_back(run_root=root)
    assert all(folder.is_dir() for folder in wanted)
    (root / "mini").rmdir()
    with run_folders.held(run_root=root):
        run_folders.give_back(run_root=root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constellation", "there"]
    assert not list(there.iterdir())
    assert not list(root.iterdir())


def test_a_folder_that_somebody_uses_by_now_stays(tmp_path: Path) -> None:
    root = tmp_path / "constellation"
    with run_folders.held(run_root=root):
        run_folders.make((tmp_path / "netns",), run_root=root)
    (tmp_path / "netns/theirs").touch()
    with run_folders.held(run_root=root):
        run_folders.give_back(run_root=root)
    assert (tmp_path / "netns/theirs").exists()


def _refused(lines: tuple[str, ...], kind: str, major: int, minor: int) -> bool:
    return bool({f"{kind} {major}:{minor} rw", f"{kind} {major}:* rw"} & set(lines))


def test_every_device_but_the_allowed_ones_is_refused() -> None:
    lines = refusals((*cgroups.NODE_DEVICES, "b 7:3 rwm"))
    allowed = {("c", 1, 3), ("c", 1, 11), ("c", 5, 2), ("c", 10, 229), ("b", 7, 3)}
    for kind in "bc":
        for major in range(512):
            for minor in (0, 1, 2, 3, 4, 11, 12, 200, 229, 237, 300):
                if (kind, major, minor) in allowed or (kind, major) == ("c", 136):
                    assert not _refused(lines, kind, major, minor)
    # disks, memory, ports, loop-control, other loops, the hypervisor
    refused = "b8:0 b259:0 b254:0 b7:0 b7:4 c1:1 c1:4 c4:64 c10:232 c10:237"
    for kind, (major, minor) in ((x[0], x[1:].split(":")) for x in refused.split()):
        assert _refused(lines, kind, int(major), int(minor))


def test_making_device_nodes_is_never_refused() -> None:
    # containers ask for it, and the kernel hands down nothing that overlaps a refusal
    assert all(line.endswith(" rw") for line in refusals(cgroups.NODE_DEVICES))


def test_a_high_loop_device_of_ones_own_is_reached_and_its_neighbours_are_not() -> None:
    lines = refusals(("b 7:700 rwm",))
    assert not _refused(lines, "b", 7, 700)
    assert _refused(lines, "b", 7, 699)


async def test_an_artifact_that_is_not_what_its_name_says_is_not_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted: list[str] = []

    async def get(_images: Images, path: Path) -> Image:
        digest = hashlib.sha256(path.read_bytes()).digest()
        return Image(digest=digest, device=None)  # type: ignore[arg-type]  # nothing is attached

    monkeypatch.setattr(Images, "get", get)
    monkeypatch.setattr(Image, "mount", lambda _image, target: mounted.append(target.name))
    store = tmp_path / "sha256"
    store.mkdir()
    good = b"hsqs good"
    name = hashlib.sha256(good).hexdigest()
    (store / name).write_bytes(good)
    (store / f".{'1' * 64}.part").write_bytes(b"hsqs not whole yet")
    await Images().mount_artifacts(tmp_path, tmp_path / "mounted")
    assert mounted == [name]
    (store / name).write_bytes(b"hsqs goon")
    with pytest.raises(WrongDigest, match=name):
        await Images().mount_artifacts(tmp_path, tmp_path / "mounted")
    assert mounted == [name]
