"""Which .deb files does a list of package names need? apt answers, without being root.

apt gets state, cache and sources of its own under the project's cache folder: its resolver and its
check of Debian's signatures are used, the host's package database is neither read nor changed.
The mirror is the one that the host is configured with, or Debian's own as debootstrap knows it.
Trusted after it ran: each file has the digest that an index signed by Debian's archive key names.
Source: apt-get(8), sources.list(5), deb-control(5).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from dataclasses import dataclass
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import decode, proc
from constellation.base.errors import FormatError, Unavailable, UserError
from constellation.base.files import write_atomic
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from constellation.base.progress import Report

__all__ = [
    "Deb",
    "Mirror",
    "PackageSet",
    "digest",
    "fetch",
    "host_mirror",
    "parse_names",
    "parse_uris",
]

SUITE = "trixie"
ARCHITECTURE = "amd64"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBOOTSTRAP_SCRIPT = Path("/usr/share/debootstrap/scripts/trixie")
_UPDATE_TIMEOUT_S = 180.0
_DOWNLOAD_TIMEOUT_S = 1800.0
_QUERY_TIMEOUT_S = 60.0
_RESOLVED = "resolved.json"
_MAX_RESOLVED_BYTES = 1024 * 1024
_URI_LINE = re.compile(
    r"^'[^']+' (?P<file>[^ /]+\.deb) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Where .deb files come from: the archive and the security archive, as URIs."""

    archive: str
    security: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """One package: name, version, SHA-256 (32 bytes) of its file, and the file's name."""

    name: str
    version: str
    sha256: bytes
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSet:
    """The packages of one root, sorted by name, and where their files lie.

    `time` is the date of the newest signed index that they came from, in seconds since 1970.
    """

    debs: tuple[Deb, ...]
    folder: Path
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    """What a list was resolved to (resolved.json)."""

    names: tuple[str, ...]
    debs: tuple[Deb, ...]
    time: int


def parse_names(text: str) -> tuple[str, ...]:
    """Read a package list: one name a line, `#` begins a comment.

    Raises:
        FormatError: a line that is not a package name (Debian Policy, section 5.6.1).
    """
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise FormatError(f"package list, line {number}: {name[:40]!r} is not a package name")
        names.append(name)
    return tuple(names)


def parse_uris(text: str) -> tuple[Deb, ...]:
    """Read what `apt-get --print-uris` prints: 'URI' NAME_VERSION_ARCH.deb SIZE SHA256:HEX.

    Raises:
        FormatError: a line of another form, or nothing at all.
    """
    debs = []
    for line in text.splitlines():
        match = _URI_LINE.match(line.strip())
        if match is None:
            raise FormatError(f"apt-get --print-uris: unexpected line {line[:120]!r}")
        name, version, _arch = match["file"].removesuffix(".deb").split("_")
        debs.append(
            Deb(
                name=name,
                version=version.replace("%3a", ":"),
                sha256=bytes.fromhex(match["sha256"]),
                file=match["file"],
            )
        )
    if not debs:
        raise FormatError("apt-get --print-uris: no package, want at least one")
    return tuple(sorted(debs, key=lambda d: d.name))


def digest(packages: PackageSet) -> bytes:
    """Give the SHA-256 (32 bytes) that stands for these packages: over names and digests."""
    lines = (f"{deb.name} {deb.version} {deb.sha256.hex()}\n" for deb in packages.debs)
    return hashlib.sha256("".join(lines).encode()).digest()


async def host_mirror() -> Mirror:
    """Give the Debian mirror that this machine is configured with.

    On a Debian host: the URIs of its own release in apt's configuration. Elsewhere the default
    that debootstrap's script for the release names.

    Raises:
        UserError: neither is there.
    """
    codename = _os_release().get("VERSION_CODENAME", "") if _is_debian() else ""
    if codename:
        listed = await proc.run(
            "apt-get",
            "indextargets",
            "--format=$(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
            timeout_s=_QUERY_TIMEOUT_S,
            check=False,
        )
        uris: dict[str, str] = {}
        for line in listed.stdout.decode(errors="replace").splitlines():
            release, _, uri = line.partition(" ")
            uris.setdefault(release, uri.rstrip("/"))
        if archive := uris.get(codename):
            return Mirror(
                archive=archive, security=uris.get(f"{codename}-security", f"{archive}-security")
            )
    if uri := await asyncio.to_thread(_debootstrap_mirror):
        return Mirror(archive=uri, security=f"{uri}-security")
    raise UserError(
        "no Debian mirror is known on this machine",
        hint="install debootstrap, or name a mirror in apt's sources",
    )


async def fetch(names: tuple[str, ...], *, folder: Path, step: str, report: Report) -> PackageSet:
    """Resolve `names` and all Essential packages, and download what is not there yet.

    `folder` belongs to this list alone; it holds apt's state, the files, and what was resolved: the
    same list is resolved once, so that images do not change because an archive did. Removing
    `folder` resolves anew.

    Raises:
        Unavailable: the mirror did not answer, or apt refused its answer.
        UserError: the host lacks Debian's archive keyring.
    """
    if (kept := await asyncio.to_thread(_kept, names, folder)) is not None:
        return kept
    mirror = await host_mirror()
    options = _prepare(folder, mirror)
    report(Progress(step=step, detail="reading Debian's package index"))
    await proc.run("apt-get", *options, "update", timeout_s=_UPDATE_TIMEOUT_S)
    install = ("install", "-y", "-qq", *_essential(folder), *names)
    uris = await proc.run("apt-get", *options, "--print-uris", *install, timeout_s=_QUERY_TIMEOUT_S)
    debs = parse_uris(uris.stdout.decode())
    report(Progress(step=step, detail="downloading", total=len(debs), unit="packages"))
    # --print-uris omits what is downloaded already, so downloads go to another folder
    await proc.run(
        "apt-get",
        *options,
        "-o",
        f"Dir::Cache::Archives={folder / 'debs'}",
        "--download-only",
        *install,
        timeout_s=_DOWNLOAD_TIMEOUT_S,
    )
    for deb in debs:
        if not _is_whole(folder, deb):
            (folder / "debs" / deb.file).unlink(missing_ok=True)
            raise Unavailable(f"{deb.file}: not the file whose SHA-256 is {deb.sha256.hex()}")
    resolved = _Resolved(names=names, debs=debs, time=_index_time(folder))
    write_atomic(folder / _RESOLVED, decode.dump(resolved))
    return PackageSet(debs=debs, folder=folder / "debs", time=resolved.time)


def _kept(names: tuple[str, ...], folder: Path) -> PackageSet | None:
    try:
        data = (folder / _RESOLVED).read_bytes()
        kept = decode.load(_Resolved, data, what=_RESOLVED, max_bytes=_MAX_RESOLVED_BYTES)
    except (FileNotFoundError, FormatError):
        return None
    if kept.names != names or not all(_is_whole(folder, deb) for deb in kept.debs):
        return None
    return PackageSet(debs=kept.debs, folder=folder / "debs", time=kept.time)


def _is_whole(folder: Path, deb: Deb) -> bool:
    try:
        data = (folder / "debs" / deb.file).read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(data).digest() == deb.sha256


def _prepare(folder: Path, mirror: Mirror) -> tuple[str, ...]:
    if not _KEYRING.exists():
        raise UserError(
            f"Debian's archive keys are not at {_KEYRING}", hint="install debian-archive-keyring"
        )
    for name in ("state/lists/partial", "archives/partial", "debs/partial", "etc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={_KEYRING} arch={ARCHITECTURE}]"
    sources = (
        f"deb {signed} {mirror.archive} {SUITE} main\n"
        f"deb {signed} {mirror.archive} {SUITE}-updates main\n"
        f"deb {signed} {mirror.security} {SUITE}-security main\n"
    )
    write_atomic(folder / "sources.list", sources.encode())
    write_atomic(folder / "status", b"")
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::Archives": folder / "archives",
        "Dir::Etc": folder / "etc",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "APT::Architecture": ARCHITECTURE,
        "APT::Architectures": ARCHITECTURE,
        "APT::Default-Release": "",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
        "Acquire::GzipIndexes": "false",
        "Acquire::ForceHash": "SHA256",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        "Binary::apt::APT::Keep-Downloaded-Packages": "true",
    }
    return tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))


def _essential(folder: Path) -> tuple[str, ...]:
    names = set()
    for index in sorted((folder / "state" / "lists").glob(f"*_{SUITE}_main_*_Packages")):
        for paragraph in index.read_text().split("\n\n"):
            if "\nEssential: yes" in paragraph:
                names.add(paragraph.partition("\n")[0].removeprefix("Package: "))
    if not names:
        raise Unavailable(f"the package index under {folder} names no essential package")
    return tuple(sorted(names))


def _index_time(folder: Path) -> int:
    times = []
    for release in (folder / "state" / "lists").glob("*_InRelease"):
        text = release.read_text().partition("\n\n")[2]
        date = HeaderParser().parsestr(text)["Date"]
        times.append(int(parsedate_to_datetime(date).timestamp()))
    if not times:
        raise Unavailable(f"no signed index lies under {folder}")
    return max(times)


def _debootstrap_mirror() -> str:
    if not _DEBOOTSTRAP_SCRIPT.exists():
        return ""
    script = _DEBOOTSTRAP_SCRIPT.read_text(errors="replace")
    match = re.search(r"^\s*default_mirror\s+(\S+)$", script, re.MULTILINE)
    return match[1].rstrip("/") if match else ""


def _os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def _is_debian() -> bool:
    return _os_release().get("ID") == "debian"
