"""Tests of constellation.crypto.x509."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from constellation.base.errors import FormatError, Untrusted
from constellation.base.secret import Secret
from constellation.crypto.signing import dump_private_key
from constellation.crypto.x509 import (
    CertificateAuthority,
    certificate_digest,
    generate_key,
    load_certificate,
    self_signed,
    spki,
    uris,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CA = CertificateAuthority.create("test CA", now=NOW, lifetime=10 * DAY)


def issue(*, ca: CertificateAuthority = CA, lifetime: timedelta = DAY) -> x509.Certificate:
    pem = ca.issue(
        spki(generate_key().public_key()),
        common_name="system:node:w-0",
        organizations=("system:nodes",),
        dns=("w-0",),
        ips=("10.42.2.10",),
        uris=("constellation://00/w-0/mesh",),
        usage="peer",
        now=NOW,
        lifetime=lifetime,
    )
    return load_certificate(pem)


def test_a_leaf_is_accepted_by_a_standard_verifier_with_its_authority() -> None:
    store = Store([CA.certificate])
    builder = PolicyBuilder().store(store).time(NOW)
    server = builder.build_server_verifier(x509.DNSName("w-0"))
    client = builder.build_client_verifier()
    leaf = issue()
    assert server.verify(leaf, [])[-1] == CA.certificate
    assert client.verify(leaf, []).chain[-1] == CA.certificate


def test_a_leaf_has_the_subject_and_names_that_were_asked_for() -> None:
    leaf = issue()
    assert leaf.subject.rfc4514_string() == "CN=system:node:w-0,O=system:nodes"
    assert uris(leaf) == ("constellation://00/w-0/mesh",)
    assert uris(CA.certificate) == ()


def test_validity_starts_slightly_back_and_never_outlives_the_authority() -> None:
    assert issue().not_valid_before_utc == NOW - timedelta(minutes=5)
    assert issue().not_valid_after_utc == NOW + DAY
    assert issue(lifetime=100 * DAY).not_valid_after_utc == CA.certificate.not_valid_after_utc


def test_an_authority_survives_dump_and_load() -> None:
    again = CertificateAuthority.load(CA.certificate_pem, CA.key_pem)
    assert again.certificate == CA.certificate
    assert issue(ca=again).issuer == CA.certificate.subject


def test_the_key_of_another_authority_is_untrusted() -> None:
    other = CertificateAuthority.create("test CA", now=NOW, lifetime=DAY)
    with pytest.raises(Untrusted, match="does not belong"):
        CertificateAuthority.load(CA.certificate_pem, other.key_pem)


def test_a_certificate_that_another_key_signed_is_no_authority() -> None:
    key, signer = generate_key(), generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    forged = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    with pytest.raises(Untrusted, match="self-signature"):
        CertificateAuthority.load(forged.public_bytes(Encoding.PEM), dump_private_key(key))


def test_a_leaf_is_not_an_authority() -> None:
    key = generate_key()
    leaf = self_signed(key, common_name="x", now=NOW, lifetime=DAY)
    with pytest.raises(FormatError, match="basicConstraints"):
        CertificateAuthority.load(leaf.public_bytes(Encoding.PEM), dump_private_key(key))


@pytest.mark.parametrize(("ca", "critical"), [(False, True), (True, False)])
def test_constraints_that_are_not_critical_and_true_are_no_authority(
    *, ca: bool, critical: bool
) -> None:
    key = generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=critical)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(FormatError, match="not critical, CA:TRUE"):
        CertificateAuthority.load(made.public_bytes(Encoding.PEM), dump_private_key(key))


def test_two_certificates_in_one_file_are_refused() -> None:
    with pytest.raises(FormatError, match="2 in one file"):
        load_certificate(CA.certificate_pem * 2)


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\n"])
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(FormatError):
        load_certificate(junk)
    with pytest.raises(FormatError):
        CertificateAuthority.load(CA.certificate_pem, Secret(junk))


def test_a_wrong_address_is_a_format_error() -> None:
    with pytest.raises(FormatError, match=r"10\.42\.2"):
        CA.issue(
            spki(generate_key().public_key()),
            common_name="x",
            ips=("10.42.2",),
            usage="client",
            now=NOW,
            lifetime=DAY,
        )


def test_a_digest_does_not_depend_on_how_the_pem_is_written() -> None:
    text = b"a comment\n" + CA.certificate_pem
    assert certificate_digest(text) == certificate_digest(CA.certificate_pem)
    assert certificate_digest(text) == CA.certificate.fingerprint(hashes.SHA256())
