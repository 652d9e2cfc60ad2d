"""What has a VM's node image beyond the local cloud's? A kernel, its modules, udev, an initrd.

All of it comes from the unpacked packages of os/machine.txt and the files of os/machine/. No
script of a package runs; modules are indexed by the packages' own depmod.
"""

from __future__ import annotations

import asyncio
import lzma
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.errors import FormatError, Unavailable
from constellation.base.tools_root import command
from constellation.image.initrd import pack_initrd
from constellation.image.sources import os_folder
from constellation.image.tools import ensure_unpacked
from constellation.image.tree import Entry

if TYPE_CHECKING:
    from constellation.base.progress import Report
    from constellation.image.packages import Deb, PackageSet

__all__ = [
    "MachineFiles",
    "linked_entries",
    "machine_files",
    "make_initrd",
    "module_names",
    "require_same",
]

_STEP = "machine's packages"
_DEPMOD_TIMEOUT_S = 120.0
_MAX_MODULE_BYTES = 64 * 1024 * 1024
_MODULES = "usr/lib/modules"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"

# what devices need: udev without its database of products, which nothing here asks
_UDEV = ("usr/bin/udevadm", "usr/lib/systemd/systemd-udevd", "usr/lib/udev", "etc/udev",
         "usr/lib/modprobe.d/fbdev-blacklist.conf", "usr/lib/systemd/network/99-default.link",
         "usr/lib/systemd/system/systemd-udev-trigger.service",
         "usr/lib/systemd/system/systemd-udevd.service",
         "usr/lib/systemd/system/systemd-udevd.service.d",
         "usr/lib/systemd/system/systemd-udevd-control.socket",
         "usr/lib/systemd/system/systemd-udevd-kernel.socket")  # fmt: skip

# what opens the state disk, and its libraries that the local cloud's root does not have
_STATE_DISK = (
    *("usr/sbin/cryptsetup", "usr/sbin/dmsetup"),
    *(f"{_LIBRARIES}/{name}" for name in ("libcryptsetup.so.12", "libpopt.so.0",
      "libjson-c.so.5", "libdevmapper.so.1.02.1")),
)  # fmt: skip

# dmsetup, and the libraries that ld.so finds for it without a cache
_INITRD_LIBRARIES = ("libdevmapper.so.1.02.1", "libc.so.6", "libselinux.so.1", "libudev.so.1",
                     "libm.so.6", "libpcre2-8.so.0", "libcap.so.2")  # fmt: skip
_INITRD_FOLDERS = ("dev", "proc", "sys")
_APPLETS = ("cat", "cut", "grep", "head", "insmod", "mkdir", "mount", "seq", "sh", "sleep",
            "switch_root")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFiles:
    """The unpacked packages: their folder, the set, and the kernel's release (as `uname -r`)."""

    root: Path
    packages: PackageSet
    release: str

    @property
    def kernel(self) -> Path:
        """The kernel, an EFI program."""
        return self.root / f"boot/vmlinuz-{self.release}"

    @property
    def stub(self) -> Path:
        """The stub of unified kernel images."""
        return self.root / "usr/lib/systemd/boot/efi/linuxx64.efi.stub"

    async def entries(self) -> tuple[Entry, ...]:
        """Give what is laid into the node's root: modules with their index, udev, cryptsetup."""
        with tempfile.TemporaryDirectory(dir=self.root.parent, prefix=".modules-") as work:
            place = Path(work, "lib/modules", self.release)
            source = self.root / _MODULES / self.release
            await asyncio.to_thread(shutil.copytree, source, place, copy_function=os.link)
            await proc.run(
                *command(self.root, "depmod"), "-b", work, self.release,
                timeout_s=_DEPMOD_TIMEOUT_S,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
            modules = await asyncio.to_thread(
                linked_entries, place, below=f"{_MODULES}/{self.release}"
            )
        found: list[Entry] = []
        for name in _UDEV:
            found += await asyncio.to_thread(linked_entries, self.root / name, below=name)
        for name in _STATE_DISK:
            data = await asyncio.to_thread((self.root / name).read_bytes)  # a library's link, too
            found.append(Entry(path=name, data=data, executable=True))
        return (*modules, *(e for e in found if "/hwdb.d/" not in e.path))


async def machine_files(cache: Path, base: tuple[Deb, ...], report: Report) -> MachineFiles:
    """Have the packages of os/machine.txt unpacked; `base` are those of the node's root.

    Raises:
        Unavailable: packages could not be fetched or unpacked, or see `require_same`.
        UserError: the host lacks Debian's archive keyring or a mirror.
    """
    root, found = await ensure_unpacked(cache, "machine", step=_STEP, report=report)
    require_same(found.debs, base)
    releases = [path.name for path in sorted((root / _MODULES).iterdir())]
    if len(releases) != 1:
        raise Unavailable(f"{root / _MODULES}: {len(releases)} kernels, want one")
    return MachineFiles(root=root, packages=found, release=releases[0])


def require_same(debs: tuple[Deb, ...], base: tuple[Deb, ...]) -> None:
    """Demand that packages of both lists are the same files: udev and systemd are of one source.

    Raises:
        Unavailable: one is not; the hint says how to resolve both lists at one time.
    """
    known = {deb.name: deb for deb in base}
    for deb in debs:
        if (other := known.get(deb.name, deb)).sha256 != deb.sha256:
            raise Unavailable(
                f"package {deb.name}: {other.version} in the node's root, {deb.version} in its VM",
                hint="remove apt-node and apt-machine from the cache's image folder: both lists "
                "are then resolved at one time",
            )


def make_initrd(files: MachineFiles) -> bytes:
    """Give the initial RAM disk: os/machine/init, a shell, dmsetup, and the modules it loads.

    Raises:
        FormatError: a module of os/machine/modules.txt is not there.
    """
    folder = os_folder() / "machine"
    names = module_names((folder / "modules.txt").read_text())
    available = {
        path.name.removesuffix(".ko.xz"): path
        for path in (files.root / _MODULES / files.release / "kernel").rglob("*.ko.xz")
    }
    if missing := [name for name in names if name not in available]:
        raise FormatError(f"os/machine/modules.txt: the kernel has no module {missing[0]}")
    loader = files.root / _LIBRARIES / "ld-linux-x86-64.so.2"
    entries = [
        _program("init", folder / "init"),
        _program("bin/busybox", files.root / "usr/bin/busybox"),
        _program("bin/dmsetup", files.root / "usr/sbin/dmsetup"),
        _program("lib64/ld-linux-x86-64.so.2", loader),
        *(Entry(path=f"bin/{applet}", link="busybox") for applet in _APPLETS),
        *(
            _program(f"lib/x86_64-linux-gnu/{name}", files.root / _LIBRARIES / name)
            for name in _INITRD_LIBRARIES
        ),
        *(
            Entry(path=f"modules.d/{name}.ko", data=_decompressed(available[name]))
            for name in names
        ),
        Entry(path="modules", data="".join(f"{name}\n" for name in names).encode()),
    ]
    return pack_initrd(tuple(entries), folders=_INITRD_FOLDERS)


def module_names(text: str) -> tuple[str, ...]:
    """Read os/machine/modules.txt: one name a line, in the order of loading; `#` is a comment.

    Raises:
        FormatError: a line that is not a module's name, or a name twice.
    """
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    names = tuple(line for line in lines if line)
    for name in names:
        if not name.replace("-", "_").isidentifier() or names.count(name) > 1:
            raise FormatError(f"list of modules: {name[:40]!r} is no module, or stands there twice")
    return names


def linked_entries(path: Path, *, below: str) -> tuple[Entry, ...]:
    """Read a file, link or folder as entries at the path `below`; links stay links."""
    if path.is_symlink():
        return (Entry(path=below, link=str(path.readlink())),)
    if path.is_dir():
        return tuple(
            entry
            for child in sorted(path.iterdir())
            for entry in linked_entries(child, below=f"{below}/{child.name}")
        )
    executable = bool(path.stat().st_mode & 0o100)
    return (Entry(path=below, data=path.read_bytes(), executable=executable),)


def _program(path: str, source: Path) -> Entry:
    return Entry(path=path, data=source.read_bytes(), executable=True)


def _decompressed(path: Path) -> bytes:
    found = lzma.LZMADecompressor()
    data = found.decompress(path.read_bytes(), max_length=_MAX_MODULE_BYTES)
    if not found.eof:
        raise FormatError(f"{path}: not a whole module")
    return data
