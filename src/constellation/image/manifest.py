"""What is in an image, what do its registers read, and who says so? The signed manifest (pure).

Canonical JSON beside the image, with a signature over its bytes (label `constellation-release`)
in a file of its own. After `verify` returned, the release key's holder has said all of it.
Source: design, sections 2 and 7; docs/architecture/image.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError
from constellation.crypto import signing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["Content", "Manifest", "dump", "reference_values", "sign", "verify"]

_VERSION = 1
_LABEL = "constellation-release"
_MAX_BYTES = 1024 * 1024
_DIGEST_CHARACTERS = (64, 96)  # SHA-256, SHA-384


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One package in an image: name, version, SHA-256 of its file (64 hexadecimal digits)."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image or bundle: its file by SHA-256 (hexadecimal) and size, and what it is made of.

    `build_time` is in seconds since 1970: no clock may be earlier. `reference_values` names for
    each PCR every digest (hexadecimal, of the variant's bank: SHA-256 or SHA-384) that a genuine
    boot leaves in it; a bundle is not booted and has none.
    """

    manifest_version: int = _VERSION
    name: str
    version: str
    sha256: str
    size_bytes: int
    build_time: int
    debs: tuple[Content, ...]
    wheels: tuple[Content, ...]
    reference_values: dict[int, tuple[str, ...]]


def dump(manifest: Manifest) -> bytes:
    """Write the bytes that are signed."""
    return decode.dump(manifest)


def sign(data: bytes, private_key: EllipticCurvePrivateKey, *, name: str) -> bytes:
    """Sign a manifest's bytes for the image `name`; gives the DER signature."""
    return signing.sign(private_key, data, label=_LABEL, cluster_id=b"", purpose=name)


def verify(data: bytes, signature: bytes, *, public_key_der: bytes, name: str) -> Manifest:
    """Authenticate a manifest and read it.

    Raises:
        Untrusted: the signature is not by this key over these bytes for this name.
        FormatError: signed, but no manifest of this version for this name.
    """
    signing.verify(public_key_der, signature, data, label=_LABEL, cluster_id=b"", purpose=name)
    manifest = decode.load(Manifest, data, what="manifest", max_bytes=_MAX_BYTES)
    if manifest.manifest_version != _VERSION or manifest.name != name:
        raise FormatError(
            f"manifest: version {manifest.manifest_version} of {manifest.name!r}, "
            f"want {_VERSION} of {name!r}"
        )
    reference_values(manifest)
    return manifest


def reference_values(manifest: Manifest) -> Mapping[int, tuple[bytes, ...]]:
    """Give PCR -> accepted values, all of one bank: 32 bytes each, or 48.

    Raises:
        FormatError: a value is not 64 or 96 hexadecimal digits, or of another bank than the rest.
    """
    found = {
        pcr: tuple(_digest(value, pcr) for value in values)
        for pcr, values in sorted(manifest.reference_values.items())
    }
    if len({len(value) for values in found.values() for value in values}) > 1:
        raise FormatError("manifest: reference values of two banks")
    return found


def _digest(value: str, pcr: int) -> bytes:
    try:
        digest = bytes.fromhex(value)
    except ValueError:
        digest = b""
    if len(value) not in _DIGEST_CHARACTERS or len(digest) * 2 != len(value):
        raise FormatError(
            f"manifest: reference value of PCR {pcr}: {value[:100]!r} is no SHA-256 or SHA-384"
        )
    return digest
