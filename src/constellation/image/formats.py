"""As which file does a cloud take a node image? A raw disk, a fixed VHD, or a tar archive of one.

What the file has beside the raw disk's bytes is zeros and a container: the same content starts,
and the same registers follow. Both containers are functions of the disk alone, without a clock.
Sources: Microsoft, "Virtual Hard Disk Image Format Specification" (2006), "Hard Disk Footer
Format"; Azure, "Prepare a VHD for upload" (whole MiB, fixed size); Google Cloud, "Import a raw disk
image" (disk.raw in a gzip-compressed tar archive of GNU's old format, whole GiB).
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from constellation.base.binary import Layout, Order, at
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMATS", "DiskFormat", "VhdFooter", "fixed_vhd_footer", "write_disk"]

_MIB, _GIB = 1024**2, 1024**3
_LARGEST_BYTES = 64 * _GIB
_SECTOR_BYTES = 512
_MOST_CYLINDERS, _MOST_HEADS = 65535, 16


class DiskFormat(StrEnum):
    """The end of the file's name."""

    RAW = "raw"
    VHD = "vhd"
    TAR_GZ = "tar.gz"


FORMATS: Final[Mapping[str, DiskFormat]] = {
    "aws": DiskFormat.RAW,
    "azure": DiskFormat.VHD,
    "gcp": DiskFormat.TAR_GZ,
    "openstack": DiskFormat.RAW,
    "baremetal": DiskFormat.RAW,
}
"""What each provider imports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdFooter(Layout):
    """The last 512 bytes of a fixed VHD."""

    SIZE: ClassVar[int] = 512
    ORDER: ClassVar[Order] = "big"
    cookie: bytes = at(0, 8)
    features: int = at(8, 4, integer=True)
    file_format_version: int = at(12, 4, integer=True)
    data_offset: int = at(16, 8, integer=True)
    time_stamp: int = at(24, 4, integer=True)
    creator_application: bytes = at(28, 4)
    creator_version: int = at(32, 4, integer=True)
    creator_host_os: bytes = at(36, 4)
    original_size: int = at(40, 8, integer=True)
    current_size: int = at(48, 8, integer=True)
    disk_geometry: bytes = at(56, 4)
    disk_type: int = at(60, 4, integer=True)
    checksum: int = at(64, 4, integer=True)
    unique_id: bytes = at(68, 16)
    saved_state: int = at(84, 1, integer=True)

    def sealed(self) -> VhdFooter:
        """Give it with its checksum: the complement of the sum of all other bytes."""
        return replace(self, checksum=~sum(replace(self, checksum=0).pack()) & 0xFFFFFFFF)


def fixed_vhd_footer(size_bytes: int, *, unique_id: bytes) -> bytes:
    """Give the footer of a fixed VHD of a size (whole MiB); `unique_id` has 16 bytes.

    Raises:
        FormatError: a size that Azure does not take.
    """
    if size_bytes <= 0 or size_bytes % _MIB or size_bytes > _LARGEST_BYTES:
        raise FormatError(f"VHD: {size_bytes} bytes, want whole MiB, {_LARGEST_BYTES} at most")
    footer = VhdFooter(
        cookie=b"conectix",
        features=2,  # reserved: always set
        file_format_version=0x00010000,
        data_offset=0xFFFFFFFFFFFFFFFF,  # fixed: no header follows
        time_stamp=0,
        # the sign by which QEMU too takes the size, and not the geometry, which rounds it down
        creator_application=b"win ",
        creator_version=0x000A0000,
        creator_host_os=b"Wi2k",
        original_size=size_bytes,
        current_size=size_bytes,
        disk_geometry=_geometry(size_bytes // _SECTOR_BYTES),
        disk_type=2,  # fixed
        checksum=0,
        unique_id=unique_id,
        saved_state=0,
    )
    return footer.sealed().pack()


def write_disk(source: Path, target: Path, *, as_: DiskFormat, unique_id: bytes) -> None:
    """Write the raw disk `source` to `target` as a cloud takes it; see `fixed_vhd_footer`."""
    size = source.stat().st_size
    match as_:
        case DiskFormat.RAW:
            shutil.copyfile(source, target)
        case DiskFormat.VHD:
            size += -size % _MIB
            shutil.copyfile(source, target)
            with target.open("r+b") as file:
                file.truncate(size)
                file.seek(0, os.SEEK_END)
                file.write(fixed_vhd_footer(size, unique_id=unique_id))
        case DiskFormat.TAR_GZ:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".disk-") as work:
                disk = Path(work, "disk.raw")
                shutil.copyfile(source, disk)
                os.truncate(disk, size + -size % _GIB)
                _pack(disk, target)


def _pack(disk: Path, target: Path) -> None:
    info = tarfile.TarInfo("disk.raw")
    info.size, info.mode = disk.stat().st_size, 0o644
    with (
        target.open("wb") as file,
        # neither the file's name nor a time is written into gzip's header
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
        disk.open("rb") as content,
    ):
        archive.addfile(info, content)


def _geometry(sectors: int) -> bytes:
    """Give cylinders, heads and sectors a track: "Appendix: CHS Calculation"."""
    sectors = min(sectors, _MOST_CYLINDERS * _MOST_HEADS * 255)
    if sectors >= _MOST_CYLINDERS * _MOST_HEADS * 63:
        track, heads = 255, _MOST_HEADS
    else:
        track, heads = 17, max(4, (sectors // 17 + 1023) // 1024)
        for wider in (31, 63):
            if heads > _MOST_HEADS or sectors // track >= heads * 1024:
                track, heads = wider, _MOST_HEADS
    cylinders = sectors // track // heads
    return cylinders.to_bytes(2, "big") + bytes((heads, track))
