"""How packages become a file system: dpkg in a namespace without network; the only part as root.

`python -m constellation.image.root_build` reads an order (JSON: packages with digests, a time) on
standard input and writes a tar stream to standard output: it opens no file of the user for
writing, and takes nothing from the environment. Each package is copied while it is hashed, so what
is installed is what was checked. Progress: one line a step on standard error.

The stream is a function of the order alone: names sorted, owners numeric, every time the given
one, no caches, logs, host names, machine id or package database; .pyc files carry the digest of
their source. It ends without the two zero blocks of a tar file, so that more can be appended.
Sources: dpkg(1), Debian Policy chapter 6, unshare(1), PEP 552.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from constellation.base import decode
from constellation.base.errors import ConstellationError, Unavailable, Untrusted
from constellation.base.files import copy_digest

__all__ = ["Order", "OrderedDeb", "main", "prune", "write_tree"]

_MAX_ORDER_BYTES = 1024 * 1024
_MAX_DEB_BYTES = 256 * 1024 * 1024
_STEP_TIMEOUT_S = 600.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# what a node has no use for, or what differs from build to build
_PRUNED = (
    "boot", "home", "media", "mnt", "opt", "srv", "etc/*-", "etc/.pwd.lock", "etc/.updated",
    # written by the layer above, from os/
    "etc/hosts", "etc/hostname", "etc/machine-id", "etc/nsswitch.conf", "etc/resolv.conf",
    "etc/os-release", "usr/lib/os-release", "etc/systemd/system/*", "usr/lib/sysctl.d",
    "usr/lib/systemd/system/default.target", "usr/lib/systemd/system-preset/*",
    # the package manager and what only it or a person needs
    "etc/apt", "etc/cron.*", "etc/dpkg", "etc/fstab", "etc/hosts.*", "etc/init.d", "etc/kernel",
    "etc/logrotate.d", "etc/mtab", "etc/network", "etc/python3*", "etc/rc*.d", "etc/skel",
    "etc/ssh", "etc/sysctl.*", "etc/update-motd.d",
    "usr/bin/deb*", "usr/bin/dpkg*", "usr/bin/perl*", "usr/sbin/dpkg*", "usr/sbin/policy-rc.d",
    "usr/sbin/update-*", "usr/lib/apt", "usr/lib/dpkg", "usr/lib/*-linux-gnu/perl-base",
    "usr/share/base-files", "usr/share/base-passwd", "usr/share/debconf", "usr/share/dpkg",
    "usr/share/debianutils", "usr/share/perl5", "usr/share/python3",
    "usr/share/applications", "usr/share/bash-completion", "usr/share/bug",
    "usr/share/ca-certificates", "usr/share/common-licenses", "usr/share/doc",
    "usr/share/doc-base", "usr/share/gcc*", "usr/share/gdb", "usr/share/info",
    "usr/share/initramfs-tools", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "usr/share/menu", "usr/share/pixmaps", "usr/share/polkit-1", "usr/share/readline",
    "usr/share/tabset", "usr/share/zsh", "usr/share/zoneinfo/right",
    # parts that no program here loads
    "usr/lib/*-linux-gnu/gconv", "usr/lib/modules", "usr/lib/systemd/boot",
    "usr/lib/systemd/system/*logind*", "usr/lib/systemd/system/*login1*",
    "usr/share/dbus-1/system-services/org.freedesktop.login1.service",
    "usr/lib/tmpfiles.d/legacy.conf",
    "usr/lib/systemd/catalog", "usr/lib/udev/hwdb.d", "usr/lib/valgrind",
    "usr/lib/python3/dist-packages/*", "usr/lib/python3*/ensurepip", "usr/lib/python3*/idlelib",
    "usr/lib/python3*/pydoc_data", "usr/lib/python3*/test", "usr/lib/python3*/tkinter",
    "usr/lib/python3*/turtle*",
    # state: made at boot
    "var/backups", "var/cache/*", "var/lib/*", "var/log/*", "var/mail", "var/spool", "var/tmp/*",
    "dev/*", "run/*", "tmp/*", "root/.*",
)  # fmt: skip

_POLICY = "#!/bin/sh\nexit 101\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedDeb:
    """One package to install: where its file lies and its SHA-256 (32 bytes)."""

    path: str
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build: packages in the order of installation, and the time of every file."""

    debs: tuple[OrderedDeb, ...]
    time: int


def prune(root: Path, patterns: tuple[str, ...] = _PRUNED) -> None:
    """Remove from `root` whatever a pattern names; the folders that mounts need stay, empty."""
    for pattern in patterns:
        # glob() follows a name without wildcards, and so misses a link that leads nowhere
        for path in sorted({*root.glob(pattern), root / pattern}):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.exists():
                path.unlink()
    for name in ("proc", "sys", "dev", "run", "tmp", "var/log", "var/lib", "var/tmp", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)


def write_tree(root: Path, output: BinaryIO, *, time: int) -> None:
    """Write everything below `root` as a tar stream without end marks.

    Sockets, pipes and device nodes are left out: a node's /dev is made at boot.
    """
    # never closed: close() would write the end marks
    tar = tarfile.TarFile(fileobj=_Forward(output), mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]  # write and tell are all it uses
    first_name: dict[int, str] = {}
    for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).parts):
        stat = path.lstat()
        entry = tarfile.TarInfo(str(path.relative_to(root)))
        entry.mode, entry.uid, entry.gid, entry.mtime = (
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid,
            time,
        )
        if path.is_symlink():
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.readlink(path), 0o777  # noqa: PTH115
            tar.addfile(entry)
        elif path.is_dir():
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        elif path.is_file():
            if stat.st_ino in first_name:
                entry.type, entry.linkname = tarfile.LNKTYPE, first_name[stat.st_ino]
                tar.addfile(entry)
                continue
            if stat.st_nlink > 1:
                first_name[stat.st_ino] = entry.name
            entry.size = stat.st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)
    output.flush()


class _Forward:
    """A stream that only goes forward, with the position that TarFile asks for."""

    def __init__(self, output: BinaryIO) -> None:
        self._output, self._position = output, 0

    def write(self, data: bytes) -> int:
        self._output.write(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position


def _install(root: Path, order: Order, *, folder: Path) -> None:
    names = []
    for number, deb in enumerate(order.debs):
        _say(f"unpack {number + 1} {len(order.debs)}")
        target = folder / f"{number:04}.deb"
        with Path(deb.path).open("rb") as source, target.open("xb") as copy:
            digest, _size = copy_digest(source, copy, max_bytes=_MAX_DEB_BYTES)
        if digest != deb.sha256:
            raise Untrusted(f"{deb.path}: SHA-256 {digest.hex()}, want {deb.sha256.hex()}")
        _run(("dpkg-deb", "--extract", str(target), str(root)), time=order.time)
        names.append(f"/var/cache/debs/{target.name}")
    _prepare(root, folder)
    # unpacked once, so that scripts find their programs; now in dpkg's own way, with the scripts
    _say("configure")
    options = ("--force-depends", "--force-unsafe-io", "--force-confnew", "--no-triggers")
    _inside(root, ("dpkg", *options, "--unpack", *names), time=order.time)
    _inside(
        root,
        ("dpkg", "--force-depends", "--force-unsafe-io", "--force-confnew", "--configure", "-a"),
        time=order.time,
    )
    _say("compile")
    for cache in sorted(root.glob("usr/lib/python3*/**/__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
    prune(root)
    _inside(
        root,
        (
            "python3",
            "-I",
            "-m",
            "compileall",
            "-q",
            "-j1",
            "--invalidation-mode",
            "unchecked-hash",
            "/usr/lib/python3.13",
        ),
        time=order.time,
    )


def _prepare(root: Path, folder: Path) -> None:
    for name in (
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/lib/dpkg/triggers",
        "var/cache/debs",
        "proc",
        "dev",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("status", "available", "diversions", "statoverride"):
        (root / "var/lib/dpkg" / name).write_text("")
    for name in ("passwd", "group"):
        shutil.copyfile(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    if not (root / "usr/bin/awk").exists():
        (root / "usr/bin/awk").symlink_to("mawk")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text(_POLICY)
    policy.chmod(0o755)
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o20666, os.makedev(1, minor))
        (root / "dev" / name).chmod(0o666)
    for file in folder.iterdir():
        file.rename(root / "var/cache/debs" / file.name)


def _inside(root: Path, argv: tuple[str, ...], *, time: int) -> None:
    # private namespaces: what a package's script mounts, starts or sends stays there
    namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts")
    with_proc = ("/bin/sh", "-c", 'mount -t proc proc /proc && exec "$@"', "sh", *argv)
    _run(("unshare", *namespaces, f"--root={root}", "--", *with_proc), time=time)


def _run(argv: tuple[str, ...], *, time: int) -> None:
    env = {
        "PATH": _PATH,
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(time),
        "PYTHONHASHSEED": "0",
    }
    try:
        done = subprocess.run(
            argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=_STEP_TIMEOUT_S, check=False, start_new_session=True,
            umask=0o022,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        tail = done.stdout.decode(errors="replace").strip()[-2000:]
        raise Unavailable(f"{argv[0]} ended with {done.returncode}: {tail}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the protocol with the caller


def main() -> None:
    """Build what standard input orders; exit codes as in base.errors."""
    os.umask(0o022)
    try:
        data = sys.stdin.buffer.read(_MAX_ORDER_BYTES + 1)
        order = decode.load(Order, data, what="order", max_bytes=_MAX_ORDER_BYTES)
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="constellation-root-") as work:
            root, folder = Path(work, "root"), Path(work, "debs")
            root.mkdir()
            folder.mkdir()
            _install(root, order, folder=folder)
            _say("write")
            write_tree(root, sys.stdout.buffer, time=order.time)
    except ConstellationError as error:
        _say(f"error {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
