"""What is a release? One signed statement: node images, reference values, Kubernetes, services.

`parse_release` reads the statement strictly; `verify_release` also demands a signature by one of
the given keys. The signature is a Sigstore bundle with a message signature (ECDSA P-256, SHA-256,
over the statement's bytes), so that `cosign verify-blob` accepts it too.
Sources: design, sections 3 and 11; Sigstore bundle, version 0.3; FIPS 186-5, section 6.
After `verify_release` the holder of a release key has stated all of it; nothing says that it is the
newest: that is the part of `release_chain`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from constellation.attestation.model import Variant  # noqa: TC001 - decode reads the hints
from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.trust import artifact_list
from constellation.trust.artifact_list import ArtifactList  # noqa: TC001 - decode reads the hints

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MAX_RELEASE_BYTES",
    "MAX_SIGNATURE_BYTES",
    "ReferenceSet",
    "Release",
    "ReleaseImage",
    "dump_release",
    "is_development",
    "parse_release",
    "sign_release",
    "verify_release",
    "version_order",
]

MAX_RELEASE_BYTES = 512 * 1024
MAX_SIGNATURE_BYTES = 8 * 1024

_FORMAT = 1
_MOST = 64
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VALUE = re.compile(r"[0-9a-f]{64}|[0-9a-f]{96}")
_LAUNCH = re.compile(r"[0-9a-f]{96}")
_WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NUMBER = r"(0|[1-9][0-9]{0,5})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-dev\.{_NUMBER})?")
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_SERVICES = "services"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSet:
    """What the registers of a genuine boot hold, and when that may be believed.

    The window is [not_before, not_after) in seconds since 1970; `not_after` None: no end.
    `registers` maps a register's number to every acceptable value (hexadecimal, 32 or 48 bytes),
    `launch` a claim about what the machine was started with (`measurement`, `mr_td` …, 48 bytes).
    """

    not_before: int
    not_after: int | None
    registers: dict[int, tuple[str, ...]]
    launch: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseImage:
    """A node image for one provider and variant: its file by SHA-256 (hexadecimal) and size.

    `urls` say where it is published; empty: it is made where it is used. An image may stand in a
    release without `reference` values; no cluster takes it then.
    """

    provider: str
    variant: Variant
    name: str
    sha256: str
    size_bytes: int
    urls: tuple[str, ...]
    reference: tuple[ReferenceSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything that belongs together, under one version.

    `version` is "1.2.3", or "1.2.3-dev.4" for what was made for development. `created` is in
    seconds since 1970. `services_bundle` is a SHA-256 (hexadecimal); `kubernetes` maps a version
    to the complete list of files that a node gets, the services bundle among them.
    `minimum_version` is the oldest release from which one may upgrade to this one; `withdrawn`
    are versions that no cluster may move to any more.
    """

    format: int
    version: str
    created: int
    images: tuple[ReleaseImage, ...]
    services_bundle: str
    kubernetes: dict[str, ArtifactList]
    minimum_version: str
    withdrawn: tuple[str, ...]

    def image(self, *, provider: str, variant: Variant) -> ReleaseImage | None:
        """Give the node image for a provider and variant, None where the release has none."""
        found = (i for i in self.images if (i.provider, i.variant) == (provider, variant))
        return next(found, None)


def version_order(version: str) -> tuple[int, int, int, int, int]:
    """Give what versions are compared by; "1.2.3-dev.4" comes before "1.2.3" (SemVer 2.0, 11).

    Raises:
        FormatError: not a version of a release.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise FormatError(f"release version {version[:40]!r}: want 1.2.3 or 1.2.3-dev.4")
    major, minor, patch, dev = match.groups()
    return int(major), int(minor), int(patch), 0 if dev is not None else 1, int(dev or 0)


def is_development(version: str) -> bool:
    """Say whether this version was made for development; such are for local clusters only."""
    return "-dev." in version


def dump_release(release: Release) -> bytes:
    """Write the bytes that are signed: canonical JSON."""
    return decode.dump(release)


def parse_release(data: bytes) -> Release:
    """Read a statement, not yet verified, 512 KiB at most.

    Raises:
        FormatError: not a release, not in canonical form, or a field that cannot be true.
    """
    release = decode.load(Release, data, what="release", max_bytes=MAX_RELEASE_BYTES)
    if dump_release(release) != data:
        raise FormatError("release: not in canonical form")
    if release.format != _FORMAT:
        raise FormatError(f"release: format {release.format}, want {_FORMAT}")
    for version in (release.version, release.minimum_version, *release.withdrawn):
        version_order(version)
    if release.version in release.withdrawn:
        raise FormatError(f"release {release.version}: withdraws itself")
    _check_images(release)
    _check_kubernetes(release)
    return release


def sign_release(data: bytes, private_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a statement's bytes; gives a Sigstore bundle (JSON)."""
    signature = private_key.sign(data, ec.ECDSA(hashes.SHA256()))
    key = hashlib.sha256(signing.spki(private_key.public_key())).digest()
    return json.dumps(
        {
            "mediaType": _BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": base64.b64encode(key).decode()}},
            "messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256",
                    "digest": base64.b64encode(hashlib.sha256(data).digest()).decode(),
                },
                "signature": base64.b64encode(signature).decode(),
            },
        },
        separators=(",", ":"),
    ).encode()


def verify_release(data: bytes, bundle: bytes, *, public_keys: Iterable[bytes]) -> Release:
    """Demand that one of these keys (DER, SPKI, P-256) signed the statement, then read it.

    Raises:
        Untrusted: none of them did.
        FormatError: the bundle is not one, or what was signed is not a release.
    """
    signature = _signature(bundle)
    for public_key in public_keys:
        try:
            signing.load_public_key(public_key).verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return parse_release(data)
    raise Untrusted(
        "release: wrong signature: expected one by a release key over this very statement"
    )


def _signature(bundle: bytes) -> bytes:
    """Take the signature out of a bundle; the rest of it proves nothing and is not needed."""
    if len(bundle) > MAX_SIGNATURE_BYTES:
        raise FormatError(f"release signature: more than {MAX_SIGNATURE_BYTES} bytes")
    try:
        value = json.loads(bundle)
        text = value["messageSignature"]["signature"]
        if value["mediaType"] != _BUNDLE or not isinstance(text, str):
            raise FormatError(f"release signature: want a Sigstore bundle, {_BUNDLE}")
        return base64.b64decode(text, validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise FormatError("release signature: not a Sigstore bundle with a signature") from None


def _check_images(release: Release) -> None:
    where = f"release {release.version}"
    if not release.images or len(release.images) > _MOST:
        raise FormatError(f"{where}: {len(release.images)} images, want 1 to {_MOST}")
    places = {(image.provider, image.variant) for image in release.images}
    if len(places) != len(release.images):
        raise FormatError(f"{where}: two images for one provider and variant")
    for image in release.images:
        here = f"{where}: image {image.name[:60]!r}"
        if not _WORD.fullmatch(image.provider) or not _WORD.fullmatch(image.name):
            raise FormatError(f"{here}: provider and name are lower-case words")
        if not _DIGEST.fullmatch(image.sha256) or image.size_bytes <= 0:
            raise FormatError(f"{here}: want a SHA-256 (64 hexadecimal digits) and a size")
        if len(image.urls) > _MOST or any(not u.startswith("https://") for u in image.urls):
            raise FormatError(f"{here}: want https addresses, {_MOST} at most")
        if len(image.reference) > _MOST:
            raise FormatError(f"{here}: more than {_MOST} sets of reference values")
        for values in image.reference:
            _check_reference(values, here)


def _check_reference(values: ReferenceSet, where: str) -> None:
    if values.not_before < 0 or (
        values.not_after is not None and values.not_after <= values.not_before
    ):
        raise FormatError(f"{where}: a window that is never open")
    if not values.registers and not values.launch:
        raise FormatError(f"{where}: a set of reference values without registers")
    if len(values.registers) > _MOST or len(values.launch) > _MOST:
        raise FormatError(f"{where}: reference values for more than {_MOST} registers")
    for register, accepted in values.registers.items():
        if not accepted or len(accepted) > _MOST or not all(map(_VALUE.fullmatch, accepted)):
            raise FormatError(
                f"{where}: register {register}: want values of 64 or 96 hexadecimal digits"
            )
    for claim, accepted in values.launch.items():
        if not accepted or len(accepted) > _MOST or not all(map(_LAUNCH.fullmatch, accepted)):
            raise FormatError(f"{where}: {claim[:40]}: want values of 96 hexadecimal digits")


def _check_kubernetes(release: Release) -> None:
    where = f"release {release.version}"
    if not _DIGEST.fullmatch(release.services_bundle):
        raise FormatError(f"{where}: services bundle: want 64 hexadecimal digits")
    if not release.kubernetes or len(release.kubernetes) > _MOST:
        raise FormatError(f"{where}: {len(release.kubernetes)} Kubernetes versions")
    for version, listed in release.kubernetes.items():
        # once more by the list's own parser: its rules are those of the ticket
        artifact_list.parse(artifact_list.dump(listed))
        if listed.kubernetes_version != version:
            raise FormatError(f"{where}: the list of {version[:40]} is of another version")
        if listed.get(_SERVICES).sha256 != release.services_bundle:
            raise FormatError(f"{where}: {version}: its list names another services bundle")
