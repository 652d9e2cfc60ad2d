"""Which bytes belong to a supported Kubernetes version: the lock that comes with the package.

`artifacts/lock.json` has, for every version, the digests of what the source build makes and the
digests of the official files and images. `parse` is pure; `load` reads the packaged file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from constellation.base import decode
from constellation.base.errors import FormatError, UserError

__all__ = [
    "CloudLock",
    "Lock",
    "LockedArtifact",
    "LockedFile",
    "LockedImage",
    "LockedWheel",
    "VersionLock",
    "artifacts_folder",
    "dump",
    "load",
    "parse",
]

_SCHEMA = 1
_MAX_BYTES = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedArtifact:
    """What the source build makes: SHA-256 (hexadecimal) and size in bytes."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFile:
    """A published file. `programs` maps members of a tar file to names of artifacts.

    A file that is itself a program has the one member "". `size_bytes` is None where the publisher
    gives no size.
    """

    url: str
    sha256: str
    programs: dict[str, str]
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedImage:
    """A published image: `sha256` is the digest of its index of all architectures.

    `programs` maps paths inside it to names of artifacts; empty: the image itself is the artifact.
    """

    reference: str
    sha256: str
    programs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedWheel:
    """The wheel that holds the Go toolchain: distribution, its version, file digest."""

    name: str
    version: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLock:
    """What belongs to one version, by origin: `source` by artifact name, `files` and `images`."""

    source: dict[str, LockedArtifact]
    files: tuple[LockedFile, ...]
    images: tuple[LockedImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudLock:
    """A cloud's component: what its source build makes, and why it is built at all."""

    source: dict[str, LockedArtifact]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The whole lock; `shared` belongs to every version (containerd, CNI, etcd, CoreDNS, pause).

    `clouds`: components of clouds, by provider; no node has them unless a release names them.
    """

    schema: int
    toolchain: LockedWheel
    shared: VersionLock
    versions: dict[str, VersionLock]
    clouds: dict[str, CloudLock] = field(default_factory=dict)

    def of(self, version: str) -> VersionLock:
        """Give what belongs to `version` ("v1.36.2"), the shared part included.

        Raises:
            UserError: the version is not supported.
        """
        own = self.versions.get(version)
        if own is None:
            raise UserError(
                f"Kubernetes {version[:40]} is not supported",
                hint=f"use one of {', '.join(sorted(self.versions, reverse=True))}",
            )
        return VersionLock(
            source={**self.shared.source, **own.source},
            files=(*own.files, *self.shared.files),
            images=(*own.images, *self.shared.images),
        )


def artifacts_folder() -> Path:
    """Give the packaged folder with the lock and the modules of the source builds."""
    return (Path(__file__).parent.parent / "artifacts").resolve()


def load() -> Lock:
    """Read the packaged lock."""
    return parse((artifacts_folder() / "lock.json").read_bytes())


def dump(lock: Lock) -> bytes:
    """Write a lock for the file: canonical JSON (people read it through a formatter)."""
    return decode.dump(lock)


def parse(data: bytes) -> Lock:
    """Read a lock.

    Raises:
        FormatError: not this JSON, another schema, a digest or size that cannot be one, a URL that
            is not https.
    """
    lock = decode.load(Lock, data, what="artifact lock", max_bytes=_MAX_BYTES)
    if lock.schema != _SCHEMA:
        raise FormatError(f"artifact lock: schema {lock.schema}, want {_SCHEMA}")
    _check("toolchain", lock.toolchain.sha256, lock.toolchain.size_bytes)
    for cloud in lock.clouds.values():
        for name, artifact in cloud.source.items():
            _check(name, artifact.sha256, artifact.size_bytes)
    for of_version in (lock.shared, *lock.versions.values()):
        for name, artifact in of_version.source.items():
            _check(name, artifact.sha256, artifact.size_bytes)
        for file in of_version.files:
            _check(file.url, file.sha256, file.size_bytes)
            if not file.url.startswith("https://") or not file.programs:
                raise FormatError(f"artifact lock: {file.url[:80]}: want https and programs")
        for image in of_version.images:
            _check(image.reference, image.sha256, None)
    return lock


def _check(name: str, sha256: str, size_bytes: int | None) -> None:
    if not _DIGEST.fullmatch(sha256):
        raise FormatError(f"artifact lock: {name[:80]}: sha256 is not 64 hexadecimal digits")
    if size_bytes is not None and size_bytes <= 0:
        raise FormatError(f"artifact lock: {name[:80]}: size {size_bytes}, want more than 0")
