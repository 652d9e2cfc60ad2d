"""Tests of constellation.crypto.signing."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Untrusted
from constellation.base.secret import Secret
from constellation.crypto.signing import (
    dump_private_key,
    generate_key,
    load_private_key,
    load_public_key,
    sign,
    signed_bytes,
    spki,
    verify,
)

KEY = generate_key()
PUBLIC = spki(KEY.public_key())
CLUSTER = bytes(32)
SIGNED = sign(KEY, b"message", label="label-v1", cluster_id=CLUSTER, purpose="join")


def test_a_signature_holds_for_what_was_signed() -> None:
    verify(PUBLIC, SIGNED, b"message", label="label-v1", cluster_id=CLUSTER, purpose="join")


@pytest.mark.parametrize(
    "changed",
    [
        {"message": b"messagf"},
        {"label": "label-v2"},
        {"cluster_id": bytes(31) + b"\1"},
        {"purpose": "init"},
        {"public_key_der": spki(generate_key().public_key())},
        {"signature": b""},
        {"signature": SIGNED[:-1]},
    ],
)
def test_any_other_part_is_untrusted(changed: dict[str, object]) -> None:
    parts = {
        "public_key_der": PUBLIC,
        "signature": SIGNED,
        "message": b"message",
        "label": "label-v1",
        "cluster_id": CLUSTER,
        "purpose": "join",
    }
    with pytest.raises(Untrusted, match="does not hold"):
        verify(**(parts | changed))  # type: ignore[arg-type]


def test_the_signed_bytes_equal_their_known_answer() -> None:
    signed = signed_bytes(b"m", label="L", cluster_id=b"\1\2", purpose="p")
    assert signed.hex() == "000000014c0000000201020000000170000000016d"


@given(st.tuples(*[st.text(max_size=4)] * 2), st.tuples(*[st.text(max_size=4)] * 2))
def test_different_parts_never_have_the_same_bytes(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    def parts(pair: tuple[str, str]) -> bytes:
        return signed_bytes(b"", label=pair[0], cluster_id=b"", purpose=pair[1])

    assert (one == other) == (parts(one) == parts(other))


def test_a_private_key_survives_dump_and_load() -> None:
    pem = dump_private_key(KEY)
    assert pem.reveal().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert spki(load_private_key(pem).public_key()) == PUBLIC


def test_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(FormatError, match="secp384r1"):
        load_private_key(dump_private_key(key))
    with pytest.raises(FormatError, match="secp384r1"):
        load_public_key(spki(key.public_key()))


def test_another_kind_of_key_is_refused() -> None:
    der = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(FormatError, match="Ed25519"):
        load_public_key(der.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(FormatError):
        load_public_key(junk)
    with pytest.raises(FormatError):
        load_private_key(Secret(junk))
