"""Which of a cloud machine's disks is its state disk? The one whose content says so.

Names of disks differ with cloud, machine type and kernel, and are the data centre's to give. So:

1. Candidates are all whole disks but the one that the verified root lies on, those that are
   read-only, removable or below 1 GiB (media with metadata), and what a cloud puts into the machine
   itself (local disks, which forget).
2. One that is a state disk already (`state_disk.inspect`) is it; else the only one that is blank.
3. None, or several: the node waits, and says which it sees.

A data centre that shows other disks keeps the node from starting, or shows it an old disk: nothing
more, since no header chooses anything and a key opens one disk only (ADR 101 to 103).
Sources: Linux, Documentation/ABI/testing/sysfs-block, Documentation/admin-guide/device-mapper;
Amazon EC2 User Guide, "Amazon EBS volumes and NVMe" (models); Google's guest-configs,
65-gce-disk-naming.rules; Microsoft's azure-vm-utils, 80-azure-disk.rules (the same of Azure).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from constellation.base.errors import FormatError, Rejected, Unavailable
from constellation.disk.superblock import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from constellation.disk.superblock import DiskState

__all__ = ["Disk", "candidates", "choose", "inspected", "read_disks"]

_WHOLE: Final = re.compile(r"nvme\d+n\d+|(?:s|v|xv)d[a-z]{1,3}")
_LEAST_BYTES: Final = 1024**3
_SECTOR_BYTES: Final = 512  # what sysfs counts in, whatever the disk's own is
_MAX_ATTRIBUTE_BYTES: Final = 256
_MOST_DISKS: Final = 64

_LOCAL: Final[Mapping[str, re.Pattern[str]]] = {
    "aws": re.compile(r"Amazon EC2 NVMe Instance Storage"),
    "azure": re.compile(r"Microsoft NVMe Direct Disk.*"),
    "gcp": re.compile(r"nvme_card\d*|EphemeralDisk"),
}
"""Models of disks that are lost with their host. Network disks: "Amazon Elastic Block Store",
"MSFT NVMe Accelerator", "nvme_card-pd", "PersistentDisk"."""
_TEMPORARY: Final = re.compile(
    r"/00000000-0001-|/f8b3781a-1e82-4818-a1c3-63d806ec15bb/(?:[^/]+/)*\d+:\d+:\d+:1/"
)
"""In the path of Azure's temporary SCSI disk: its device on Hyper-V's bus in machines of the first
generation; in those of the second, as confidential ones are, LUN 1 of the image's controller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One whole disk as sysfs shows it. `place` is its path there, with every link followed."""

    name: str
    size_bytes: int
    model: str
    place: str
    read_only: bool
    removable: bool
    has_root: bool


def candidates(disks: tuple[Disk, ...], *, provider: str) -> tuple[Disk, ...]:
    """Give the disks that may be the state disk (rule 1)."""
    local = _LOCAL.get(provider)
    return tuple(
        disk
        for disk in disks
        if not (disk.has_root or disk.read_only or disk.removable)
        and disk.size_bytes >= _LEAST_BYTES
        and _TEMPORARY.search(disk.place) is None
        and (local is None or local.fullmatch(disk.model) is None)
    )


def choose(found: Mapping[str, DiskState | None]) -> str:
    """Choose by content (rules 2 and 3): name -> what it is, None for what is somebody else's.

    Raises:
        Unavailable: none, or none that is the only one.
    """
    for state in (State.KNOWN, State.NEW):
        names = sorted(n for n, disk in found.items() if disk is not None and disk.state is state)
        if len(names) == 1:
            return names[0]
        if names:
            raise Unavailable(
                f"state disk: {', '.join(names)} are each a {state} one",
                hint="one of them has to go: nothing here says which was meant",
            )
    seen = ", ".join(sorted(found)) or "no disk beside the node image's"
    raise Unavailable(f"state disk: none is blank or one of ours ({seen})")


def inspected(
    disks: tuple[Disk, ...], inspect: Callable[[str], DiskState]
) -> dict[str, DiskState | None]:
    """Say what each disk is; None: neither blank nor ours.

    Raises:
        Unavailable: one cannot be read.
    """
    found: dict[str, DiskState | None] = {}
    for disk in disks:
        try:
            found[disk.name] = inspect(disk.name)
        except (FormatError, Rejected):
            found[disk.name] = None
    return found


def read_disks(sys: Path) -> tuple[Disk, ...]:
    """Read the whole disks that `sys` (/sys) shows, 64 at most; one that goes away is left out.

    Raises:
        Unavailable: the verified root's disk is not to be found.
    """
    root = _root_places(sys)
    if not root:
        raise Unavailable("state disk: the verified root lies on no disk (dm name root)")
    found = []
    for path in sorted((sys / "block").iterdir()):
        place = str(path.resolve())
        if _WHOLE.fullmatch(path.name) is None or _text(path / "hidden") == "1":
            continue
        size = _text(path / "size")
        if size.isascii() and size.isdecimal():
            found.append(
                Disk(
                    name=path.name,
                    size_bytes=int(size) * _SECTOR_BYTES,
                    model=_text(path / "device/model"),
                    place=place,
                    read_only=_text(path / "ro") != "0",
                    removable=_text(path / "removable") != "0",
                    has_root=place in root,
                )
            )
    return tuple(found[:_MOST_DISKS])


def _root_places(sys: Path) -> frozenset[str]:
    """Give the disks under the device that the initial RAM disk opened by its root digest."""
    return frozenset(
        str(partition.resolve().parent)
        for mapped in (sys / "block").glob("dm-*")
        if _text(mapped / "dm/name") == "root"
        for partition in (mapped / "slaves").iterdir()
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_ATTRIBUTE_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
