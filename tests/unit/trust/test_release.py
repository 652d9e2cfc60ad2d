"""The statement of a release: one spelling, one signature that others' tools check too."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.signing import generate_key, spki
from constellation.trust.release import (
    dump_release,
    parse_release,
    sign_release,
    verify_release,
    version_order,
)

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from tests.fakes.release_world import artifacts, image, release

if TYPE_CHECKING:
    from pathlib import Path

KEY = generate_key()
PUBLIC = spki(KEY.public_key())
DATA = dump_release(release("0.2.0"))
BUNDLE = sign_release(DATA, KEY)


def test_a_signed_release_is_verified_and_read_again() -> None:
    other = spki(generate_key().public_key())
    assert verify_release(DATA, BUNDLE, public_keys=(other, PUBLIC)) == release("0.2.0")


def test_a_release_signed_by_another_key_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="wrong signature"):
        verify_release(DATA, BUNDLE, public_keys=(spki(generate_key().public_key()),))


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_any_flipped_bit_of_the_statement_is_untrusted(position: int, bit: int) -> None:
    changed = bytearray(DATA)
    changed[position % len(changed)] ^= 1 << bit
    with pytest.raises(Untrusted):
        verify_release(bytes(changed), BUNDLE, public_keys=(PUBLIC,))


def test_the_signature_is_a_sigstore_bundle_over_the_plain_bytes(tmp_path: Path) -> None:
    """What `cosign verify-blob --key K --bundle B` reads; openssl checks the signature in it."""
    bundle = json.loads(BUNDLE)
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    message = bundle["messageSignature"]
    assert message["messageDigest"]["algorithm"] == "SHA2_256"
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "signature").write_bytes(base64.b64decode(message["signature"]))
    (tmp_path / "key").write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    words = ("openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature", "data")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Verified OK\n")


@given(st.binary(max_size=200))
def test_junk_is_no_signature(junk: bytes) -> None:
    with pytest.raises(FormatError):
        verify_release(DATA, junk, public_keys=(PUBLIC,))


def test_a_signature_without_end_is_not_read() -> None:
    with pytest.raises(FormatError, match="more than 8192 bytes"):
        verify_release(DATA, BUNDLE + b" " * 8192, public_keys=(PUBLIC,))


_IMAGE = image("0.2.0")
_VALUES = _IMAGE.reference[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2, want 1"),
        ({"version": "0.2"}, "want 1.2.3 or 1.2.3-dev.4"),
        ({"version": "00.2.0"}, "want 1.2.3 or 1.2.3-dev.4"),
        ({"minimum_version": "new"}, "want 1.2.3"),
        ({"withdrawn": ("x",)}, "want 1.2.3"),
        ({"withdrawn": ("0.2.0",)}, "withdraws itself"),
        ({"images": ()}, "0 images"),
        ({"images": (_IMAGE, _IMAGE)}, "two images for one provider and variant"),
        ({"images": (image("0.2.0", provider="Lo cal"),)}, "lower-case words"),
        ({"images": (image("0.2.0", sha256="00"),)}, "want a SHA-256"),
        ({"images": (image("0.2.0", size_bytes=0),)}, "want a SHA-256"),
        ({"images": (image("0.2.0", urls=("http://a/",)),)}, "want https"),
        ({"services_bundle": "ff"}, "services bundle: want 64"),
        ({"services_bundle": "f" * 64}, "names another services bundle"),
        ({"kubernetes": {}}, "0 Kubernetes versions"),
        (
            {"kubernetes": {"v1.36.1": artifacts("v1.36.2", services="services 0.2.0")}},
            "of another version",
        ),
        (
            {"images": (image("0.2.0", reference=(dataclasses.replace(_VALUES, registers={}),)),)},
            "without registers",
        ),
        (
            {
                "images": (
                    image(
                        "0.2.0", reference=(dataclasses.replace(_VALUES, registers={4: ("0",)}),)
                    ),
                )
            },
            "register 4",
        ),
        (
            {
                "images": (
                    image("0.2.0", reference=(dataclasses.replace(_VALUES, not_after=1000),)),
                )
            },
            "never open",
        ),
    ],
)
def test_a_release_that_cannot_be_meant_is_refused(changes: dict[str, object], words: str) -> None:
    parse_release(DATA)
    with pytest.raises(FormatError, match=words):
        parse_release(dump_release(dataclasses.replace(release("0.2.0"), **changes)))  # type: ignore[arg-type] # fields by name


def test_another_spelling_of_the_same_release_is_refused() -> None:
    with pytest.raises(FormatError, match="canonical"):
        parse_release(DATA + b"\n")
    unknown = decode.dump({**json.loads(DATA), "more": 1})
    with pytest.raises(FormatError, match="unknown key"):
        parse_release(unknown)


def test_a_development_version_comes_before_its_release() -> None:
    order = ["0.1.9", "0.2.0-dev.0", "0.2.0-dev.9", "0.2.0-dev.10", "0.2.0", "0.10.0"]
    assert sorted(order, key=version_order) == order
