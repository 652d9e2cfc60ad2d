"""State disks on loop devices, with the kernel's own encryption. Needs root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Rejected
from constellation.base.secret import Secret
from constellation.disk import fscrypt
from constellation.disk.native import finish, format_and_open, inspect, open_known
from constellation.disk.superblock import State

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster

UUID = bytes(range(16, 32))
KEY = Secret(bytes(range(64)))


def run(*argv: str | Path) -> str:
    return subprocess.run([*map(str, argv)], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state"
    yield path
    if path.is_mount():
        run("umount", path)


@pytest.fixture
def device(tmp_path: Path, mount_point: Path) -> Iterator[Path]:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    loop = Path(run("losetup", "--find", "--show", image).strip())
    yield loop
    if mount_point.is_mount():
        run("umount", mount_point)
    run("losetup", "--detach", loop)


async def formatted(device: Path, mount_point: Path) -> None:
    await format_and_open(device, UUID, KEY, mount_point=mount_point)
    await finish(device, mount_point=mount_point)


async def test_a_disk_is_new_until_it_is_finished(device: Path, mount_point: Path) -> None:
    await format_and_open(device, UUID, KEY, mount_point=mount_point)
    (mount_point / "encrypted" / "half").write_text("a key was on its way")
    run("umount", mount_point)
    assert inspect(device).state is State.NEW
    await formatted(device, mount_point)
    assert [p.name for p in (mount_point / "encrypted").iterdir()] == []
    run("umount", mount_point)
    assert inspect(device).state is State.KNOWN


async def test_a_finished_disk_is_known_on_the_medium_before_any_write_back(
    device: Path, mount_point: Path, tmp_path: Path
) -> None:
    medium = tmp_path / "disk.img"
    await format_and_open(device, UUID, KEY, mount_point=mount_point)
    assert inspect(medium).state is State.NEW
    await finish(device, mount_point=mount_point)
    # the node's memory has it for half a minute more; a power cut would have made it a new disk
    assert inspect(medium).state is State.KNOWN


async def test_a_blank_disk_is_formatted_and_opens_again_with_its_key(
    device: Path, mount_point: Path
) -> None:
    assert inspect(device).state is State.NEW
    await formatted(device, mount_point)
    (mount_point / "encrypted" / "etcd").mkdir()
    (mount_point / "encrypted" / "etcd" / "member").write_text("plain words")
    run("umount", mount_point)
    found = inspect(device)
    assert (found.state, found.uuid) == (State.KNOWN, UUID)
    await open_known(device, UUID, KEY, mount_point=mount_point)
    assert (mount_point / "encrypted/etcd/member").read_text() == "plain words"


async def test_the_device_holds_neither_names_nor_contents(device: Path, mount_point: Path) -> None:
    await format_and_open(device, UUID, KEY, mount_point=mount_point)
    (mount_point / "encrypted" / "a-name-to-look-for").write_bytes(b"contents to look for" * 500)
    run("umount", mount_point)
    raw = device.read_bytes()
    assert b"a-name-to-look-for" not in raw
    assert b"contents to look for" not in raw


async def test_another_key_is_refused_before_anything_is_written(
    device: Path, mount_point: Path
) -> None:
    await formatted(device, mount_point)
    run("umount", mount_point)
    with pytest.raises(Rejected, match="master_key_identifier"):
        await open_known(device, UUID, Secret(os.urandom(64)), mount_point=mount_point)
    assert not mount_point.is_mount()


async def test_another_uuid_is_refused(device: Path, mount_point: Path) -> None:
    await formatted(device, mount_point)
    run("umount", mount_point)
    with pytest.raises(Rejected, match="want known"):
        await open_known(device, bytes(16), KEY, mount_point=mount_point)


async def test_a_folder_without_encryption_is_refused(device: Path, mount_point: Path) -> None:
    await formatted(device, mount_point)
    (mount_point / "encrypted").rmdir()
    (mount_point / "encrypted").mkdir()
    run("umount", mount_point)
    with pytest.raises(Rejected, match="not encrypted"):
        await open_known(device, UUID, KEY, mount_point=mount_point)


async def test_a_known_disk_and_a_foreign_disk_are_never_formatted(
    device: Path, mount_point: Path
) -> None:
    await formatted(device, mount_point)
    run("umount", mount_point)
    with pytest.raises(Rejected, match="want new"):
        await format_and_open(device, UUID, KEY, mount_point=mount_point)
    run("mkfs.ext4", "-q", "-F", "-L", "photos", device)
    with pytest.raises(Rejected, match="label"):
        await format_and_open(device, UUID, KEY, mount_point=mount_point)


async def test_a_disk_with_data_behind_a_blank_start_is_refused(device: Path) -> None:
    with device.open("r+b", buffering=0) as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"x" * 4096)
    with pytest.raises(Rejected):
        inspect(device)


async def test_formatting_that_was_interrupted_starts_again(
    device: Path, mount_point: Path
) -> None:
    run("mkfs.ext4", "-q", "-F", "-O", "encrypt,stable_inodes", "-L", "constellation-0", device)
    assert inspect(device).state is State.NEW
    await format_and_open(device, UUID, KEY, mount_point=mount_point)
    assert fscrypt.read_policy(mount_point / "encrypted") == fscrypt.our_policy(KEY)
