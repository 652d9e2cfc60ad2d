"""Is this device blank, a state disk of ours, or somebody else's? Read from ext4's superblock.

Source: Linux, Documentation/filesystems/ext4/super.rst. Nothing read here is trusted: it only
chooses between formatting, asking for a key, and refusing. The label becomes ours as the last step
of formatting, so a disk whose formatting was interrupted counts as new.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from constellation.base.errors import FormatError, Rejected

__all__ = ["LABEL", "LABEL_UNFINISHED", "SUPERBLOCK_END", "DiskState", "State", "judge", "refused"]

LABEL = "constellation"
LABEL_UNFINISHED = "constellation-0"
SUPERBLOCK_END = 2048
"""The superblock is the 1024 bytes from 1024 on."""

_MAGIC = 0xEF53
_COMPAT_STABLE_INODES = 0x800
_INCOMPAT_ENCRYPT = 0x10000
_UUID_BYTES = 16


class State(StrEnum):
    """What a node may do with its state disk."""

    NEW = "new"
    KNOWN = "known"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """A state disk that is new or known; `uuid`: 16 bytes, empty for a new one."""

    state: State
    uuid: bytes

    def require_new(self) -> None:
        """Refuse to format anything but a new disk. Raises Rejected."""
        if self.state is not State.NEW:
            raise Rejected((f"state disk: {self.state}, want new",), hint="it is never formatted")

    def require_known(self, uuid: bytes) -> None:
        """Refuse to open anything but the disk with this uuid. Raises Rejected."""
        if self.state is not State.KNOWN or self.uuid != uuid:
            raise Rejected(
                (f"state disk: {self.state} {self.uuid.hex()}, want known {uuid.hex()}",)
            )


def judge(first: bytes, *, blank: bool) -> DiskState:
    """Decide from the first 2048 bytes of a device and whether all that was read is zero.

    Raises:
        Rejected: neither blank nor ours; it is never formatted.
    """
    if len(first) != SUPERBLOCK_END:
        raise FormatError(f"state disk: {len(first)} bytes read, want {SUPERBLOCK_END}")
    if blank:
        return DiskState(state=State.NEW, uuid=b"")
    superblock = first[1024:]
    magic = int.from_bytes(superblock[0x38:0x3A], "little")
    if magic != _MAGIC:
        raise refused(f"neither blank nor ext4 (magic {magic:#06x}, want {_MAGIC:#06x})")
    label = superblock[0x78:0x88].rstrip(b"\0")
    if label == LABEL_UNFINISHED.encode():
        return DiskState(state=State.NEW, uuid=b"")
    findings = []
    if label != LABEL.encode():
        findings.append(f"ext4 with the label {label!r}, want {LABEL!r}")
    if not int.from_bytes(superblock[0x5C:0x60], "little") & _COMPAT_STABLE_INODES:
        findings.append("ext4 without stable_inodes")
    if not int.from_bytes(superblock[0x60:0x64], "little") & _INCOMPAT_ENCRYPT:
        findings.append("ext4 without encrypt")
    uuid = superblock[0x68 : 0x68 + _UUID_BYTES]
    if not any(uuid):
        findings.append("ext4 without a UUID")
    if findings:
        raise refused(*findings)
    return DiskState(state=State.KNOWN, uuid=uuid)


def refused(*findings: str) -> Rejected:
    """Make the error of a disk that is neither blank nor ours, with everything that was found."""
    return Rejected(
        tuple(f"state disk: {finding}" for finding in findings),
        hint="a disk that is not ours is never formatted: give the node a blank one",
    )
