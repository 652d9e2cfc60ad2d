"""As which file a cloud takes a node image: the disk, zeros, and a container without a clock."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError
from constellation.image.flavours import FLAVOURS
from constellation.image.formats import (
    FORMATS,
    DiskFormat,
    VhdFooter,
    fixed_vhd_footer,
    write_disk,
)

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024**2
DISK = bytes(range(256)) * 4096 + b"end" * 512  # a MiB and a half KiB


def written(folder: Path, as_: DiskFormat, disk: bytes = DISK) -> bytes:
    (folder / "disk").write_bytes(disk)
    write_disk(folder / "disk", folder / "out", as_=as_, unique_id=b"u" * 16)
    return (folder / "out").read_bytes()


def test_every_provider_that_has_an_image_has_a_format() -> None:
    assert set(FORMATS) == set(FLAVOURS)


def test_raw_is_the_disk_itself(tmp_path: Path) -> None:
    assert written(tmp_path, DiskFormat.RAW) == DISK


def test_a_vhd_is_the_disk_in_whole_mib_and_a_footer(tmp_path: Path) -> None:
    data = written(tmp_path, DiskFormat.VHD)
    assert len(data) == 2 * MIB + 512
    assert data[: len(DISK)] == DISK
    assert not any(data[len(DISK) : 2 * MIB])
    footer = VhdFooter.parse(data[2 * MIB :])
    assert (footer.cookie, footer.disk_type) == (b"conectix", 2)
    assert footer.current_size == footer.original_size == 2 * MIB
    assert footer == footer.sealed()
    rest = data[2 * MIB :]
    assert sum(rest) - sum(rest[64:68]) == ~footer.checksum & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("mib", "geometry"),
    # the specification's formula, by hand
    [(2, (60, 4, 17)), (2048, (4161, 16, 63)), (40960, (20560, 16, 255))],
)
def test_the_geometry_is_the_specifications(mib: int, geometry: tuple[int, int, int]) -> None:
    found = VhdFooter.parse(fixed_vhd_footer(mib * MIB, unique_id=bytes(16))).disk_geometry
    assert (int.from_bytes(found[:2], "big"), found[2], found[3]) == geometry


@pytest.mark.parametrize("size", [0, -MIB, MIB + 512, 65 * 1024**3])
def test_a_size_that_azure_does_not_take_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="whole MiB"):
        fixed_vhd_footer(size, unique_id=bytes(16))


def test_google_gets_one_member_of_whole_gib_and_nothing_of_this_machine(tmp_path: Path) -> None:
    data = written(tmp_path, DiskFormat.TAR_GZ)
    # RFC 1952, section 2.3: no flags (no name), no time
    assert (data[:3], data[3], data[4:8]) == (b"\x1f\x8b\x08", 0, bytes(4))
    with tarfile.open(tmp_path / "out") as archive:
        member = archive.next()
        assert member is not None
        assert (member.name, member.size, member.mtime) == ("disk.raw", 1024**3, 0)
        content = archive.extractfile(member)
        assert content is not None
        assert content.read(len(DISK)) == DISK
        assert not any(content.read(MIB))
    assert not list(tmp_path.glob(".disk-*"))
