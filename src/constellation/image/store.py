"""Where do finished images lie, and when are they believed? Signed, in folders by digest.

cache/image/NAME-KEY/ has `image.squashfs` (a VM's: `image.raw`), `manifest.json` and
`manifest.json.sig`; KEY is the digest of everything that the image is made of. What lies there is
believed only if the manifest's signature, and size and digest of the file, hold; else it is
refused, said so, and built again.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import constellation
from constellation.base.errors import FormatError, Untrusted
from constellation.base.files import copy_digest, write_atomic
from constellation.base.progress import Progress
from constellation.crypto import signing
from constellation.image import manifest as manifests
from constellation.image.manifest import Content, Manifest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.base.progress import Report

__all__ = [
    "RAW_DISK",
    "SQUASHFS",
    "NodeImage",
    "Plan",
    "ServicesBundle",
    "ensure",
    "find_image",
    "load",
]

SQUASHFS = "image.squashfs"
"""A node's root, or a bundle: mounted as it lies."""
RAW_DISK = "image.raw"
"""A disk that a machine boots from."""

_MANIFEST = "manifest.json"
_SIGNATURE = "manifest.json.sig"
_MAX_IMAGE_BYTES = 4 * 1024**3
_KEY_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImage:
    """A node image: its file, its signed manifest, and who signed it (DER, SPKI)."""

    path: Path
    manifest_path: Path
    manifest: Manifest
    release_public_key: bytes

    @property
    def reference_values(self) -> Mapping[int, tuple[bytes, ...]]:
        """PCR -> accepted values of the variant's bank (32 or 48 bytes each)."""
        return manifests.reference_values(self.manifest)


ServicesBundle = NodeImage
"""The services bundle has the same parts; its manifest has no reference values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be built: `make` writes the file to a path, given the version.

    It gives what the registers read after a boot (PCR -> accepted values), nothing for what is
    never booted. `key` is hexadecimal, `file` the file's name.
    """

    name: str
    file: str
    key: str
    time: int
    debs: tuple[Content, ...]
    wheels: tuple[Content, ...]
    make: Callable[[Path, str], Awaitable[Mapping[int, tuple[bytes, ...]]]]


def load(folder: Path, *, public_key_der: bytes, name: str, file_name: str = SQUASHFS) -> NodeImage:
    """Read an image from its folder and believe it only if signature, size and digest hold.

    Raises:
        Untrusted: manifest or image is not what the release key signed.
        FormatError: the manifest is signed, but cannot be read.
        FileNotFoundError: nothing there.
    """
    data = (folder / _MANIFEST).read_bytes()
    signature = (folder / _SIGNATURE).read_bytes()
    manifest = manifests.verify(data, signature, public_key_der=public_key_der, name=name)
    with (folder / file_name).open("rb") as file:
        digest, size = copy_digest(file, None, max_bytes=_MAX_IMAGE_BYTES)
    if (digest.hex(), size) != (manifest.sha256, manifest.size_bytes):
        raise Untrusted(
            f"{folder / file_name}: SHA-256 {digest.hex()} ({size} bytes), the manifest says "
            f"{manifest.sha256} ({manifest.size_bytes} bytes)"
        )
    return NodeImage(
        path=folder / file_name,
        manifest_path=folder / _MANIFEST,
        manifest=manifest,
        release_public_key=public_key_der,
    )


def find_image(cache: Path, sha256: str) -> Path | None:
    """Find the file of a node image by its digest, which is what says that it is the one."""
    for path in sorted((cache / "image").glob(f"*/{SQUASHFS}")):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return path
    return None


async def ensure(
    plan: Plan, image: Path, private_key: EllipticCurvePrivateKey, report: Report
) -> NodeImage:
    """Give the image that `plan` describes, from `image` (a folder) or built and signed now.

    Raises:
        Unavailable: a tool failed while building.
    """
    public_key = signing.spki(private_key.public_key())
    folder = image / f"{plan.name}-{plan.key[:_KEY_CHARACTERS]}"
    try:
        found = await asyncio.to_thread(
            load, folder, public_key_der=public_key, name=plan.name, file_name=plan.file
        )
    except FileNotFoundError:
        pass
    except (Untrusted, FormatError) as error:
        report(Progress(step=plan.name, detail=f"refused and built again: {error}"))
    else:
        report(Progress(step=plan.name, detail=found.manifest.version, finished=True))
        return found
    report(Progress(step=plan.name, detail="writing the file system"))
    version = f"{constellation.__version__}+{plan.key[:_KEY_CHARACTERS]}"
    work = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=image, prefix=".image-"))
    try:
        values = await plan.make(work / plan.file, version)
        manifest = await asyncio.to_thread(_manifest, plan, work, version, values)
        await asyncio.to_thread(_finish, manifest, work, folder, private_key)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        raise
    report(Progress(step=plan.name, detail=version, finished=True))
    return await asyncio.to_thread(
        load, folder, public_key_der=public_key, name=plan.name, file_name=plan.file
    )


def _manifest(
    plan: Plan, work: Path, version: str, values: Mapping[int, tuple[bytes, ...]]
) -> Manifest:
    with (work / plan.file).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    (work / plan.file).chmod(0o644)
    return Manifest(
        name=plan.name,
        version=version,
        sha256=digest.hex(),
        size_bytes=(work / plan.file).stat().st_size,
        build_time=plan.time,
        debs=plan.debs,
        wheels=plan.wheels,
        reference_values={pcr: tuple(v.hex() for v in found) for pcr, found in values.items()},
    )


def _finish(
    manifest: Manifest, work: Path, folder: Path, private_key: EllipticCurvePrivateKey
) -> None:
    data = manifests.dump(manifest)
    write_atomic(work / _MANIFEST, data)
    write_atomic(work / _SIGNATURE, manifests.sign(data, private_key, name=manifest.name))
    work.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
