"""Chains of a made-up authority: each rule has a certificate that only it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation import chain
from constellation.attestation.roots import aws, google, microsoft
from constellation.base.errors import FormatError, Untrusted
from tests.fakes.certificates import Authority, make

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ROOT = Authority.root("root", now=NOW)
MIDDLE = ROOT.authority("middle", now=NOW)
LEAF = MIDDLE.leaf("leaf", now=NOW)


def verify(leaf: x509.Certificate = LEAF, **changed: Any) -> tuple[x509.Certificate, ...]:
    arguments: dict[str, Any] = {
        "intermediates": (MIDDLE.certificate,),
        "roots": (ROOT.certificate,),
        "now": NOW,
        "what": "test",
    }
    return chain.verify(leaf, **(arguments | changed))


def test_a_chain_is_given_leaf_first_root_last() -> None:
    assert verify() == (LEAF, MIDDLE.certificate, ROOT.certificate)


def test_only_given_roots_are_trusted() -> None:
    other = Authority.root("root", now=NOW)
    with pytest.raises(Untrusted, match="issuer CN=root did not sign it"):
        verify(roots=(other.certificate,))
    with pytest.raises(Untrusted, match="issuer CN=middle was not given"):
        verify(intermediates=())
    with pytest.raises(Untrusted, match="was not given"):
        verify(roots=())
    with pytest.raises(Untrusted, match="root's own"):
        verify(ROOT.certificate)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: MIDDLE.leaf("l", now=NOW - timedelta(days=400)), "CN=l: valid from"),
        (lambda: MIDDLE.leaf("l", now=NOW + timedelta(days=400)), "CN=l: valid from"),
        (lambda: MIDDLE.leaf("l", now=NOW, critical="1.2.3.4"), "unknown critical extension"),
        (lambda: MIDDLE.leaf("l", now=NOW, hashed=hashes.SHA224()), "signed with sha224"),
    ],
)
def test_each_rule_of_a_leaf_counts(change: Callable[[], x509.Certificate], reason: str) -> None:
    with pytest.raises(Untrusted, match=reason):
        verify(change())


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ({"ca": False}, "it may not issue"),
        ({"signs": False}, "it may not issue"),
        ({"constraints": False}, "lacks 2.5.29.19"),
        ({"now": NOW - timedelta(days=4000)}, "CN=m: valid from"),
    ],
)
def test_each_rule_of_an_issuer_counts(middle: dict[str, Any], reason: str) -> None:
    authority = ROOT.authority("m", **({"now": NOW} | middle))
    with pytest.raises(Untrusted, match=reason):
        verify(authority.leaf("l", now=NOW), intermediates=(authority.certificate,))


def test_a_path_length_counts_the_authorities_below() -> None:
    short = ROOT.authority("short", now=NOW, path_length=0)
    below = short.authority("below", now=NOW)
    leaf = below.leaf("l", now=NOW)
    with pytest.raises(Untrusted, match="path length 0, 1 authorities below"):
        verify(leaf, intermediates=(short.certificate, below.certificate))
    verify(short.leaf("l", now=NOW), intermediates=(short.certificate,))


def test_a_renewed_authority_that_is_valid_now_is_chosen() -> None:
    old = make("middle", MIDDLE.key, issuer=ROOT, now=NOW - timedelta(days=4000), ca=True)
    assert verify(intermediates=(old, MIDDLE.certificate))[1] == MIDDLE.certificate


def test_authorities_that_certify_each_other_end() -> None:
    a = Authority.root("a", now=NOW)
    b = a.authority("b", now=NOW)
    crossed = make("a", a.key, issuer=b, now=NOW, ca=True)
    with pytest.raises(Untrusted, match=r"more than 8|was not given"):
        verify(b.leaf("l", now=NOW), intermediates=(b.certificate, crossed))


def test_pem_and_der_are_read_and_nothing_after_them() -> None:
    pem = LEAF.public_bytes(Encoding.PEM) + MIDDLE.certificate.public_bytes(Encoding.PEM)
    assert chain.load_all(b"# comment\n" + pem, what="t") == (LEAF, MIDDLE.certificate)
    der = LEAF.public_bytes(Encoding.DER)
    assert chain.load_all(der, what="t") == (LEAF,)
    with pytest.raises(FormatError):
        chain.load(der + b"\0", what="t")
    with pytest.raises(FormatError, match="at most"):
        chain.load(bytes(9000), what="t")
    with pytest.raises(FormatError, match="9 certificates"):
        chain.load_all(LEAF.public_bytes(Encoding.PEM) * 9, what="t")


def test_carried_roots_are_authorities_that_sign_themselves() -> None:
    for der in (*aws.ROOTS, *google.ROOTS, *microsoft.ROOTS):
        root = chain.load(der, what="root")
        root.verify_directly_issued_by(root)
    for der in (*google.INTERMEDIATES, *microsoft.INTERMEDIATES):
        certificate = chain.load(der, what="intermediate")
        roots = tuple(chain.load(r, what="r") for r in (*google.ROOTS, *microsoft.ROOTS))
        at = certificate.not_valid_before_utc
        assert len(chain.verify(certificate, intermediates=(), roots=roots, now=at, what="i")) == 2


@given(st.binary(max_size=64))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for data in (junk, b"-----BEGIN CERTIFICATE-----\n" + junk, b"\x30\x82" + junk):
        with pytest.raises(FormatError):
            chain.load_all(data, what="junk")


DER = LEAF.public_bytes(Encoding.DER)


@given(st.integers(0, 8 * len(DER) - 1))
def test_any_flipped_bit_of_a_certificate_is_refused(bit: int) -> None:
    changed = bytearray(DER)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, Untrusted)):
        verify(chain.load(bytes(changed), what="flipped"))


@pytest.mark.filterwarnings("ignore")  # as a program runs that does not make them errors
def test_a_serial_number_that_is_not_positive_is_refused() -> None:
    start = DER.index(LEAF.serial_number.to_bytes(20, "big"))
    changed = DER[:start] + b"\x80" + DER[start + 1 :]
    with pytest.raises(FormatError, match="serial number is not positive"):
        chain.load(changed, what="leaf")


def test_keys_of_other_kinds_are_given_as_they_are() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf = make("rsa", key, issuer=MIDDLE, now=NOW)
    assert chain.public_key(leaf) == key.public_key()
