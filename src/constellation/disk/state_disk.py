"""A node's state disk, from a bare device to the mounted folders that hold all its state.

Two ways, by what the machine attests with: LUKS2 with integrity (`luks`) everywhere but in the
local cloud, whose machines share a kernel without device mapper: ext4's native encryption
(`native`), which is not authentic. A known disk that does not fit is refused, never formatted, and
a disk that was made in one way is none in the other.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from constellation.attestation.model import Variant
from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable
from constellation.base.files import write_atomic
from constellation.base.proc import run
from constellation.disk import found, luks, native
from constellation.disk.device import ENCRYPTED
from constellation.disk.superblock import State  # noqa: TC001 - a field's type

if TYPE_CHECKING:
    from constellation.base.secret import Secret
    from constellation.disk.superblock import DiskState

__all__ = [
    "BINDS",
    "DEVICE",
    "DISK_JSON",
    "MOUNT_POINT",
    "DiskRecord",
    "Way",
    "bind_folders",
    "device_by_content",
    "device_from_host",
    "finish",
    "format_and_open",
    "inspect",
    "open_known",
    "read_record",
    "way_of",
    "write_record",
]

MOUNT_POINT = Path("/run/state")
DISK_JSON = Path("/run/constellation/disk.json")
DEVICE = Path("/dev/constellation-state")
"""Not below /run, which is mounted with `nodev`."""

BINDS: tuple[tuple[str, Path, int], ...] = (
    ("constellation", Path("/var/lib/constellation"), 0o700),
    ("containerd", Path("/var/lib/containerd"), 0o711),
    ("kubelet", Path("/var/lib/kubelet"), 0o700),
    ("etcd", Path("/var/lib/etcd"), 0o700),
    ("etc-kubernetes", Path("/etc/kubernetes"), 0o700),
    ("log-pods", Path("/var/log/pods"), 0o755),
)
"""Folder below `encrypted` -> where the node sees it, and its mode."""

_HOST_FILE = Path("/run/constellation/host/state-disk")
_MAX_HOST_FILE_BYTES = 256
_BY_ID = Path("/dev/disk/by-id")
_SYS, _DEV = Path("/sys"), Path("/dev")
_NUMBER = re.compile(r"([0-9]{1,4}):([0-9]{1,7})")
# what udev makes of serial numbers: no dot first, no slash
_NAME = re.compile(r"[A-Za-z0-9_:+=@-][A-Za-z0-9_.:+=@-]{0,127}")
_MOUNT_TIMEOUT_S = 30


class Way(Protocol):
    """One way to keep a state disk: the modules `luks` and `native`."""

    def inspect(self, device: Path) -> DiskState:
        """See `state_disk.inspect`."""
        ...

    async def format_and_open(
        self, device: Path, uuid: bytes, key: Secret, *, mount_point: Path
    ) -> None:
        """See `state_disk.format_and_open`."""
        ...

    async def open_known(
        self, device: Path, uuid: bytes, key: Secret, *, mount_point: Path
    ) -> None:
        """See `state_disk.open_known`."""
        ...

    async def finish(self, device: Path, *, mount_point: Path) -> None:
        """See `state_disk.finish`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRecord:
    """`/run/constellation/disk.json`: where the state disk stands; `uuid` is 32 hex digits."""

    state: State
    uuid: str


def way_of(variant: Variant) -> Way:
    """Say how the disk of a machine with `variant` is kept: authentic, but on a local node."""
    return native if variant is Variant.LOCAL_VTPM else luks


def device_from_host(
    host_file: Path = _HOST_FILE, device: Path = DEVICE, *, names: Path = _BY_ID
) -> Path:
    """Make the device node that the machine names in `host_file`.

    `MAJOR:MINOR`, or a name that udev gives below `names` (/dev/disk/by-id). It is not trusted:
    a disk that is neither blank nor this node's own is refused, whoever named it.

    Raises:
        FormatError: neither a number nor such a name.
        Unavailable: the machine names none, or none has the name (yet).
    """
    try:
        with host_file.open("rb") as file:
            text = file.read(_MAX_HOST_FILE_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise Unavailable(f"this machine has no state disk ({host_file} is missing)") from None
    if numbers := _NUMBER.fullmatch(text):
        number = os.makedev(int(numbers[1]), int(numbers[2]))
    elif _NAME.fullmatch(text):
        number = _number(names / text)
    else:
        raise FormatError(f"{host_file}: {text[:40]!r}, want MAJOR:MINOR or a name in {names}")
    return _make_node(device, number)


def device_by_content(
    provider: str, *, variant: Variant, device: Path = DEVICE, sys: Path = _SYS, dev: Path = _DEV
) -> Path:
    """Make the device node of the state disk that `found` chooses, where nobody names one.

    Raises:
        Unavailable: none, several, or one that cannot be read.
    """
    disks = found.candidates(found.read_disks(sys), provider=provider)
    name = found.choose(found.inspected(disks, lambda n: inspect(dev / n, variant=variant)))
    return _make_node(device, _number(dev / name))


def inspect(device: Path, *, variant: Variant) -> DiskState:
    """Say whether `device` is blank (new) or a state disk of ours (known, with its uuid).

    Raises:
        FormatError, Rejected: anything else.
        Unavailable: it cannot be read.
    """
    return way_of(variant).inspect(device)


async def format_and_open(
    device: Path, uuid: bytes, key: Secret, *, variant: Variant, mount_point: Path = MOUNT_POINT
) -> None:
    """Format a new disk, encrypt it with `key` (64 bytes), and leave it mounted.

    It counts as new until `finish`: what a node cannot do without is written before that.

    Raises:
        Rejected: the disk is not new, or encryption is not what was asked for.
        Unavailable: formatting or mounting failed.
    """
    await way_of(variant).format_and_open(device, uuid, key, mount_point=mount_point)


async def finish(
    device: Path = DEVICE, *, variant: Variant, mount_point: Path = MOUNT_POINT
) -> None:
    """Make a formatted disk count as known; its folder holds what the next boot needs.

    Returns when that stands on the medium: a power cut afterwards makes no new disk of it.

    Raises:
        Unavailable: the disk did not take its name.
    """
    await way_of(variant).finish(device, mount_point=mount_point)


async def open_known(
    device: Path, uuid: bytes, key: Secret, *, variant: Variant, mount_point: Path = MOUNT_POINT
) -> None:
    """Open a known disk with `key` (64 bytes) and leave it mounted.

    Raises:
        FormatError, Rejected: not the disk with this uuid, or not encrypted with this key as it
            must be.
        Unavailable: mounting failed.
    """
    await way_of(variant).open_known(device, uuid, key, mount_point=mount_point)


async def bind_folders(mount_point: Path = MOUNT_POINT, *, root: Path = Path("/")) -> None:
    """Bind the folders of `BINDS` to their places below `root`; done already is not an error."""
    for name, target, mode in BINDS:
        source = mount_point / ENCRYPTED / name
        place = root / target.relative_to("/")
        source.mkdir(mode=mode, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        if not place.is_mount():
            await run("mount", "--bind", source, place, timeout_s=_MOUNT_TIMEOUT_S)
    (mount_point / "artifacts").mkdir(mode=0o755, exist_ok=True)


def write_record(record: DiskRecord, path: Path = DISK_JSON) -> None:
    """Tell the programs that come later where the disk stands."""
    write_atomic(path, decode.dump(record))


def read_record(path: Path = DISK_JSON) -> DiskRecord:
    """Read what `write_record` wrote.

    Raises:
        Unavailable: the disk mapper has not said anything yet.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Unavailable(f"{path} is missing: the disk mapper has not run") from None
    return decode.load(DiskRecord, data, what=str(path), max_bytes=4096)


def _make_node(device: Path, number: int) -> Path:
    device.unlink(missing_ok=True)
    os.mknod(device, stat.S_IFBLK | 0o600, number)
    return device


def _number(link: Path) -> int:
    try:
        status = link.stat()
    except OSError as error:
        raise Unavailable(
            f"state disk: no disk is named {link.name} ({error.strerror})",
            hint="give the machine's disk this serial number, or write the name that it has",
        ) from None
    if not stat.S_ISBLK(status.st_mode):
        raise Unavailable(f"state disk: {link} is no disk")
    return status.st_rdev
