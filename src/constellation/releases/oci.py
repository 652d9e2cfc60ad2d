"""How an image is one file: an OCI image layout in a tar file, the same bytes for the same content.

Source: OCI Image Format Specification 1.1 (image-layout.md, manifest.md, config.md); the annotation
`io.containerd.image.name` is what containerd's importer takes the full name from.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Descriptor", "image_index", "read_manifest_digest", "write_image", "write_layout"]

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# what a program of Go's standard library looks up
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob by media type, SHA-256 (hexadecimal) and size in bytes."""

    media_type: str
    sha256: str
    size_bytes: int

    def json(self) -> dict[str, Any]:
        """Give the descriptor as the specification writes it."""
        return {
            "mediaType": self.media_type,
            "digest": f"sha256:{self.sha256}",
            "size": self.size_bytes,
        }


def image_index(reference: str, manifest: Descriptor) -> bytes:
    """Give the layout's index.json: one manifest for linux/amd64, named for containerd."""
    entry = {
        **manifest.json(),
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
    }
    return _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]})


def write_image(
    target: Path,
    *,
    reference: str,
    programs: Mapping[str, Path],
    links: Mapping[str, str],
    entrypoint: tuple[str, ...],
    scratch: Path,
) -> None:
    """Write an image of one layer to `target`.

    Args:
        target: the tar file to write.
        reference: full name with tag.
        programs: path inside the image to the file on disk; mode 0755.
        links: path inside the image to the target of a symbolic link.
        entrypoint: what runs if the pod names no command.
        scratch: a folder for the layer.
    """
    layer = scratch / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.USTAR_FORMAT) as tar:
        _write_tree(tar, programs, links)
    with layer.open("rb") as file:
        layer_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [f"PATH={_PATH}"], "Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_sha256}"]},
        }
    )
    layer_blob = Descriptor(media_type=_LAYER, sha256=layer_sha256, size_bytes=layer.stat().st_size)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _describe(_CONFIG, config).json(),
            "layers": [layer_blob.json()],
        }
    )
    described = _describe(_MANIFEST, manifest)
    write_layout(
        target,
        index=image_index(reference, described),
        blobs={
            described.sha256: manifest,
            hashlib.sha256(config).hexdigest(): config,
            layer_sha256: layer,
        },
    )
    layer.unlink()


def write_layout(target: Path, *, index: bytes, blobs: Mapping[str, bytes | Path]) -> None:
    """Write a layout with these blobs (by SHA-256, hexadecimal; bytes or files) to a tar file."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', mode=0o644)
        _add_bytes(tar, "index.json", index, mode=0o644)
        for sha256 in sorted(blobs):
            blob, name = blobs[sha256], f"blobs/sha256/{sha256}"
            if isinstance(blob, bytes):
                _add_bytes(tar, name, blob, mode=0o644)
            else:
                _add_file(tar, name, blob, mode=0o644)


def read_manifest_digest(image: Path) -> str:
    """Give the digest (SHA-256, hexadecimal) by which a registry knows an image of `write_image`.

    The file is ours, and its own digest was checked: a layout of another form is a bug.
    """
    with tarfile.open(image) as tar:
        (entry,) = json.loads(b"".join(tar.extractfile("index.json") or ()))["manifests"]
    digest: str = entry["digest"]
    return digest.removeprefix("sha256:")


def _write_tree(
    tar: tarfile.TarFile, programs: Mapping[str, Path], links: Mapping[str, str]
) -> None:
    folders = {"etc", "tmp", "usr"}
    for path in programs:
        parts = path.split("/")[:-1]
        folders |= {"/".join(parts[: i + 1]) for i in range(len(parts))}
    for folder in sorted(folders):
        entry = _entry(folder, mode=0o1777 if folder == "tmp" else 0o755)
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    for path, content in sorted(_FILES.items()):
        _add_bytes(tar, path, content, mode=0o644)
    for path, target in sorted(links.items()):
        entry = _entry(path, mode=0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        tar.addfile(entry)
    for path, file in sorted(programs.items()):
        _add_file(tar, path, file, mode=0o755)


def _entry(name: str, *, mode: int) -> tarfile.TarInfo:
    # TarInfo's own defaults are owner 0, group 0, no names, time 0: nothing of this machine
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    return entry


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    entry = _entry(name, mode=mode)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, path: Path, *, mode: int) -> None:
    entry = _entry(name, mode=mode)
    entry.size = path.stat().st_size
    with path.open("rb") as file:
        tar.addfile(entry, file)


def _describe(media_type: str, blob: bytes) -> Descriptor:
    return Descriptor(
        media_type=media_type, sha256=hashlib.sha256(blob).hexdigest(), size_bytes=len(blob)
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
