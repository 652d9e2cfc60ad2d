"""Which files make a node run one Kubernetes version: name, kind, size and SHA-256 of each.

The list stands in the signed cluster policy and in tickets. It is pure data: who downloads a file
compares it with its entry before using one byte of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from constellation.base import decode
from constellation.base.errors import FormatError

__all__ = ["Artifact", "ArtifactKind", "ArtifactList", "dump", "parse"]

_MAX_BYTES = 256 * 1024
_MAX_ARTIFACTS = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"v(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
# names of programs, of OCI references, and of bundles; nothing that leaves its folder
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._:/-]{0,198}[a-z0-9])?")


class ArtifactKind(StrEnum):
    """What a node does with a file."""

    BINARY = "binary"  # an executable, by its file name
    IMAGE = "image"  # an OCI image layout in a tar file; its name is the reference
    CONTENT = "content"  # squashfs of containerd's root with all images unpacked
    ARCHIVE = "archive"  # a read-only bundle that is mounted (the services)
    OBJECTS = "objects"  # Kubernetes objects of a cloud's components (kube.cloud_objects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file: `sha256` is 64 lower-case hexadecimal digits, `size_bytes` is exact.

    `urls` say where it came from, if it is published as it is; empty for what was built or packed.
    """

    name: str
    kind: ArtifactKind
    sha256: str
    size_bytes: int
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactList:
    """All files of one Kubernetes version ("v1.36.2"), sorted by kind and name."""

    kubernetes_version: str
    artifacts: tuple[Artifact, ...]

    def get(self, name: str) -> Artifact:
        """Give the artifact of that name.

        Raises:
            FormatError: the list has none.
        """
        for artifact in self.artifacts:
            if artifact.name == name:
                return artifact
        raise FormatError(f"artifact list of {self.kubernetes_version}: no {name}")

    def objects(self, name: str) -> Artifact:
        """Give the artifact of that name, which is Kubernetes objects.

        Raises:
            FormatError: the list has none, or it is something else.
        """
        found = self.get(name)
        if found.kind is not ArtifactKind.OBJECTS:
            raise FormatError(f"artifact list: {found.name} is {found.kind}, expected objects")
        return found

    def of_kind(self, kind: ArtifactKind) -> tuple[Artifact, ...]:
        """Give the artifacts of one kind, in the list's order."""
        return tuple(a for a in self.artifacts if a.kind is kind)

    def with_artifacts(self, *more: Artifact) -> ArtifactList:
        """Give a list that has these too, in place of those with the same name."""
        names = {a.name for a in more}
        kept = (a for a in self.artifacts if a.name not in names)
        return ArtifactList(
            kubernetes_version=self.kubernetes_version, artifacts=_sorted((*kept, *more))
        )


def dump(artifacts: ArtifactList) -> bytes:
    """Write the list as canonical JSON; equal lists have equal bytes."""
    return decode.dump(artifacts)


def parse(data: bytes) -> ArtifactList:
    """Read a list, 256 KiB and 256 artifacts at most.

    Raises:
        FormatError: not this JSON; a name twice; not sorted; a digest, size, name or version that
            does not have its form.
    """
    parsed = decode.load(ArtifactList, data, what="artifact list", max_bytes=_MAX_BYTES)
    if not _VERSION.fullmatch(parsed.kubernetes_version):
        raise FormatError(f"artifact list: version {parsed.kubernetes_version[:40]!r}, want v1.2.3")
    if len(parsed.artifacts) > _MAX_ARTIFACTS:
        raise FormatError(f"artifact list: more than {_MAX_ARTIFACTS} artifacts")
    for artifact in parsed.artifacts:
        _check(artifact)
    names = [a.name for a in parsed.artifacts]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise FormatError(f"artifact list: {twice} stands there twice")
    if parsed.artifacts != _sorted(parsed.artifacts):
        raise FormatError("artifact list: not sorted by kind and name")
    return parsed


def _sorted(artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
    return tuple(sorted(artifacts, key=lambda a: (a.kind, a.name)))


def _check(artifact: Artifact) -> None:
    where = f"artifact list: {artifact.name[:60]!r}"
    if not _NAME.fullmatch(artifact.name) or ".." in artifact.name or "//" in artifact.name:
        raise FormatError(f"{where} is not a name")
    if not _DIGEST.fullmatch(artifact.sha256):
        raise FormatError(f"{where}: sha256 is not 64 lower-case hexadecimal digits")
    if artifact.size_bytes <= 0:
        raise FormatError(f"{where}: size {artifact.size_bytes} bytes, want more than 0")
