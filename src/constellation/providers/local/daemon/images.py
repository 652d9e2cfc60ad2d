"""Node images as the firmware sees them: hashed, and mounted from the very same descriptor.

An image that is unchanged (device, inode, size, mtime and ctime) is not hashed again by the same
daemon. Whoever may write the file on the workstation is trusted there (design, section 2).
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base.digest import WrongDigest
from constellation.base.errors import UserError
from constellation.base.files import copy_digest
from constellation.providers.local.daemon import kernel, loops

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Image", "Images", "os_release", "unmount_artifacts"]

_MAX_BYTES = 8 * 1024**3
_MAX_OS_RELEASE_BYTES = 64 * 1024
# first bytes of a squashfs (squashfs_fs.h)
_SQUASHFS_MAGIC = b"hsqs"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image whose bytes are `digest` (SHA-256, 32 bytes), on a read-only loop device."""

    digest: bytes
    device: loops.LoopDevice

    def mount(self, target: Path) -> None:
        """Mount it read-only (squashfs), in place of what is mounted there."""
        kernel.umount(target)
        target.mkdir(parents=True, exist_ok=True)
        kernel.mount(
            str(self.device.path), target, kind="squashfs", flags=kernel.MS_RDONLY | kernel.MS_NODEV
        )


def os_release(root: Path) -> bytes:
    """Read a mounted image's `.osrel`: /usr/lib/os-release. Raises UserError."""
    try:
        with (root / "usr/lib/os-release").open("rb") as file:
            return file.read(_MAX_OS_RELEASE_BYTES)
    except OSError as error:
        raise UserError(f"the node image has no /usr/lib/os-release: {error}") from error


def unmount_artifacts(target: Path) -> None:
    """Undo `Images.mount_artifacts`."""
    for path in sorted(target.glob("*")):
        kernel.umount(path)


def _is_squashfs(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQUASHFS_MAGIC)) == _SQUASHFS_MAGIC


class Images:
    """The images that this daemon has open."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, ...], Image] = {}
        self._lock = asyncio.Lock()

    async def get(self, path: Path) -> Image:
        """Open, hash and attach an image.

        Raises:
            UserError: it cannot be read.
            Unavailable: no loop device.
        """
        async with self._lock:
            return await asyncio.to_thread(self._get, path)

    async def mount_artifacts(self, artifacts: Path, target: Path) -> None:
        """Mount each squashfs of `artifacts`/sha256 at `target`/HEX: a node may not use loops.

        Raises:
            WrongDigest: a file is not what its name says; a node could not see that.
            UserError, Unavailable: see `get`.
        """
        for path in sorted((artifacts / "sha256").glob("*")):
            if not _DIGEST.fullmatch(path.name):
                continue
            if await asyncio.to_thread(_is_squashfs, path):
                image = await self.get(path)
                if image.digest.hex() != path.name:
                    raise WrongDigest(
                        f"artifact {path}",
                        expected=path.name,
                        found=image.digest.hex(),
                        hint="`constellation artifacts mirror` fetches it again",
                    )
                image.mount(target / path.name)

    def _get(self, path: Path) -> Image:
        try:
            file = path.open("rb")
        except OSError as error:
            raise UserError(
                f"node image cannot be read: {error}", hint="mini up builds it"
            ) from error
        with file:
            stat = os.fstat(file.fileno())
            key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if key in self._open:
                return self._open[key]
            digest, size = copy_digest(file, None, max_bytes=_MAX_BYTES)
            if size > _MAX_BYTES:
                raise UserError(f"node image {path} is larger than {_MAX_BYTES} bytes")
            device = loops.attach(file.fileno(), name=digest.hex(), read_only=True)
        self._open[key] = Image(digest=digest, device=device)
        return self._open[key]

    def close(self) -> None:
        """Let go of all; mounts keep their device until they are gone."""
        for image in self._open.values():
            image.device.close()
        self._open.clear()
