"""Published GCE certificates of both authorities, and what a made-up Google must not get past."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation import chain
from constellation.attestation.google import certificate as gce
from constellation.attestation.google.certificate import CertifiedKey, InstanceInfo, Purpose
from constellation.attestation.roots import google
from constellation.base.errors import FormatError, Untrusted
from tests.fakes.google import GoogleWorld
from tests.vectors import evidence

if TYPE_CHECKING:
    from cryptography import x509

ITEMS = {i: item for i, item in evidence.items("gcp").items() if "instance_info" in item["values"]}
ROOTS = tuple(chain.load(der, what="root") for der in google.ROOTS)
CARRIED = tuple(chain.load(der, what="intermediate") for der in google.INTERMEDIATES)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WORLD = GoogleWorld(NOW)


def certificates(item: str) -> tuple[x509.Certificate, ...]:
    names = [f["file"] for f in ITEMS[item]["files"]]
    (name,) = [n for n in names if "cert/" in n or "ak_c" in n]
    return chain.load_all((evidence.folder() / "gcp" / name).read_bytes(), what=item)


def verify(item: str, purpose: Purpose, **changed: Any) -> CertifiedKey:
    leaf, *rest = certificates(item)
    arguments: dict[str, Any] = {
        "intermediates": (*rest, *CARRIED),
        "roots": ROOTS,
        "now": datetime.fromisoformat(ITEMS[item]["verify_at"]),
    }
    return gce.verify(leaf, purpose=purpose, **(arguments | changed)).claims


def purpose_of(item: str) -> Purpose:
    return Purpose.EK if item.endswith("enc") else Purpose.AK


@pytest.mark.parametrize("item", ITEMS)
def test_a_published_certificate_is_authentic_with_its_instance(item: str) -> None:
    found = verify(item, purpose_of(item)).instance
    said = dict(ITEMS[item]["values"]["instance_info"])
    said |= said.pop("security_properties")
    assert {name: getattr(found, name) for name in said} == said


@pytest.mark.parametrize("item", ITEMS)
def test_a_key_for_one_purpose_does_not_serve_the_other(item: str) -> None:
    (other,) = set(Purpose) - {purpose_of(item)}
    with pytest.raises(Untrusted, match="it is not an"):
        verify(item, other)


@pytest.mark.parametrize("item", ITEMS)
def test_published_certificates_need_roots_and_intermediates(item: str) -> None:
    with pytest.raises(Untrusted, match="was not given"):
        verify(item, purpose_of(item), roots=())
    with pytest.raises(Untrusted, match="was not given"):
        verify(item, purpose_of(item), intermediates=())
    for year in (2020, 2060):
        with pytest.raises(Untrusted, match="valid from"):
            verify(item, purpose_of(item), now=datetime(year, 1, 1, tzinfo=UTC))


def made(leaf: x509.Certificate, purpose: Purpose = Purpose.AK) -> CertifiedKey:
    arguments: dict[str, Any] = {"intermediates": WORLD.intermediates, "roots": WORLD.roots}
    return gce.verify(leaf, purpose=purpose, now=NOW, **arguments).claims


def test_a_made_up_google_is_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    found = made(WORLD.certify(key.public_key(), instance_name="n1"))
    assert found.key == key.public_key()
    assert found.instance.claims["gce.instance_name"] == b"n1"


def test_an_ek_of_a_curve_agrees_on_keys_and_is_no_ak() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = WORLD.certify(key.public_key(), agrees=True)
    assert made(leaf, Purpose.EK).key == key.public_key()
    with pytest.raises(Untrusted, match="it is not an attestation key"):
        made(leaf)


def test_properties_that_google_left_out_promise_nothing() -> None:
    info = made(WORLD.certify(ec.generate_private_key(ec.SECP256R1()).public_key(), bare=True))
    assert info.instance.is_production is None
    assert info.instance.claims["gce.is_production"] == 0


def test_each_rule_of_an_ak_certificate_counts() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505
    with pytest.raises(Untrusted, match="names no instance"):
        made(WORLD.certify(public, extension=None))
    with pytest.raises(Untrusted, match="authority's"):
        made(WORLD.certify(public, ca=True))
    with pytest.raises(Untrusted, match=r"2\.5\.29\.19 is missing"):
        made(WORLD.certify(public, constraints=False))
    with pytest.raises(Untrusted, match="1024 bits"):
        made(WORLD.certify(small))
    with pytest.raises(Untrusted, match="want RSA or EC"):
        made(WORLD.certify(ed25519.Ed25519PrivateKey.generate().public_key()))
    with pytest.raises(FormatError, match="instance information"):
        made(WORLD.certify(public, extension=b"\x30\0"))


@given(st.binary(max_size=80))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for data in (junk, b"\x30" + bytes([len(junk)]) + junk):
        with pytest.raises(FormatError):
            InstanceInfo.parse(data)
