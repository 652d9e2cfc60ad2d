"""The disk that the test machine boots from: Debian's packages, installed, as an ext4 image.

Packages come from `constellation.image.packages` (apt's resolver and signatures, no installation on
this machine) and are configured in namespaces without network, as a node's root is. Nothing is
pruned: it is an ordinary Debian 13 with systemd, cgroup v2 and Debian's kernel. On top come the
agent of this test and nothing of Constellation: that is on the second disk (`content`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.progress import Progress
from constellation.base.tools_root import command
from constellation.image import packages, root_build
from constellation.image import wheels as wheels_room

if TYPE_CHECKING:
    from constellation.base.progress import Report

HERE = Path(__file__).resolve().parent
SIZE = "24G"  # sparse: what a cluster writes fits, and preflight wants 10 GB free
STEP = "machine's root"

# what the initial RAM disk needs to find /dev/vda: a list makes it small, and quick to make
INITRAMFS = {
    "etc/initramfs-tools/conf.d/constellation": "MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\ncrc32c\n",
}
FILES = {
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1 localhost debian\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\nLABEL=content /srv/content ext4 defaults 0 2\n",
    "etc/systemd/system/constellation-test.service": """[Unit]
Description=Obey the test that started this machine
After=multi-user.target

[Service]
ExecStart=/usr/bin/python3 -u /srv/content/agent.py
StandardError=journal+console

[Install]
WantedBy=graphical.target
""",
}
LINKS = {
    "etc/systemd/system/default.target": "/usr/lib/systemd/system/graphical.target",
    "etc/systemd/system/graphical.target.wants/constellation-test.service": (
        "/etc/systemd/system/constellation-test.service"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The disk image, and kernel and initial RAM disk that were installed in it."""

    disk: Path
    kernel: Path
    initrd: Path
    environment: Path
    """Constellation's Python environment, made inside by the clone's own launcher."""


async def ensure_root(folder: Path, *, tools: Path, clone: Path, report: Report) -> Root:
    """Give the root for packages.txt and this recipe, made on first use; needs root.

    Raises:
        Unavailable: packages could not be fetched or installed.
    """
    names = packages.parse_names((HERE / "packages.txt").read_text())
    found = await packages.fetch(names, folder=folder / "apt-root", step=STEP, report=report)
    lock = (clone / "requirements-runtime.lock").read_bytes()
    recipe = Path(__file__).read_bytes() + Path(root_build.__file__).read_bytes()
    launcher = (clone / "constellation").read_bytes()
    parts = (packages.digest(found), recipe, lock, launcher)
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    made = folder / f"root-{key[:16]}"
    root = Root(
        disk=made / "root.ext4",
        kernel=made / "vmlinuz",
        initrd=made / "initrd.img",
        environment=made / "env",
    )
    if not made.is_dir():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as name:
            work = Path(name)
            await _download(clone / "requirements-runtime.lock", folder / "wheels", report)
            _install(work, found, clone=clone, wheels=folder / "wheels")
            await _pack(work, made, tools=tools)
    return root


async def _download(lock: Path, folder: Path, report: Report) -> None:
    """Fetch the wheels of a lock for Debian 13's Python; pip checks each against the lock."""
    report(Progress(step=STEP, detail="downloading Python packages"))
    target = ("--python-version", wheels_room.PYTHON, "--implementation", "cp")
    abis = ("--abi", "cp313", "--abi", "abi3", "--abi", "none")
    platforms = tuple(word for p in wheels_room._PLATFORMS for word in ("--platform", p))
    await proc.run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--require-hashes", "--only-binary", ":all:", *target, *abis, *platforms,
        "--dest", folder, "--requirement", lock,
        timeout_s=600,
    )  # fmt: skip


def _install(work: Path, found: packages.PackageSet, *, clone: Path, wheels: Path) -> None:
    """Unpack and configure, in the steps of `root_build`, but keep everything."""
    root, debs = work / "root", work / "debs"
    root.mkdir()
    debs.mkdir()
    names = []
    for number, deb in enumerate(found.debs):
        data = (found.folder / deb.file).read_bytes()
        assert hashlib.sha256(data).digest() == deb.sha256, deb.file
        target = debs / f"{number:04}.deb"
        target.write_bytes(data)
        root_build._run(("dpkg-deb", "--extract", str(target), str(root)), time=found.time)
        names.append(f"/var/cache/debs/{target.name}")
    root_build._prepare(root, debs)
    options = ("--force-depends", "--force-unsafe-io", "--force-confold")
    root_build._inside(
        root, ("dpkg", *options, "--no-triggers", "--unpack", *names), time=found.time
    )
    _write(root, INITRAMFS)
    root_build._inside(root, ("dpkg", *options, "--configure", "-a"), time=found.time)
    (root / "usr/sbin/policy-rc.d").unlink()
    shutil.rmtree(root / "var/cache/debs")
    _write(root, FILES)
    for name, target_name in LINKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target_name)
    (root / "srv/content").mkdir()
    _environment(root, clone=clone, wheels=wheels, time=found.time)


def _environment(root: Path, *, clone: Path, wheels: Path, time: int) -> None:
    """Let the clone's launcher make its environment with this Debian's Python, from wheels."""
    (root / "root/clone").mkdir()
    for name in ("constellation", "requirements-runtime.lock"):
        shutil.copy2(clone / name, root / "root/clone" / name)
    shutil.copytree(clone / "src", root / "root/clone/src")
    shutil.copytree(wheels, root / "root/wheels")
    words = ("env", "HOME=/root", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/root/wheels")
    root_build._inside(root, (*words, "/root/clone/constellation", "version"), time=time)
    shutil.rmtree(root / "root/clone")
    shutil.rmtree(root / "root/wheels")


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


async def _pack(work: Path, made: Path, *, tools: Path) -> None:
    root, done = work / "root", work / "made"
    done.mkdir()
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    shutil.copyfile(kernel, done / "vmlinuz")
    shutil.copyfile(initrd, done / "initrd.img")
    (root / "root/.cache/constellation/env").rename(done / "env")
    shutil.rmtree(root / "root/.cache")
    await make_disk(root, done / "root.ext4", size=SIZE, label="root", tools=tools)
    os.replace(done, made)  # noqa: PTH105 - both are folders


async def make_disk(folder: Path, disk: Path, *, size: str, label: str, tools: Path) -> None:
    """Make an ext4 image of `size` with the content of a folder: no loop device, no mount."""
    await proc.run("truncate", "--size", size, disk, timeout_s=30)
    await proc.run(
        *command(tools, "mkfs.ext4"), "-q", "-F", "-L", label, "-d", folder,
        # times of this machine's files, no lazy work for the guest
        "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", disk,
        timeout_s=600,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
