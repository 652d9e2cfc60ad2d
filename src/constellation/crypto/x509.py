"""The certificates that we issue ourselves: small P-256 authorities, short-lived leaves.

A certificate is valid from five minutes before `now`, since the clocks of nodes differ by seconds,
and never beyond its issuer's end. Sources: RFC 5280, sections 4.1 and 4.2; FIPS 186-5. Nothing
here reads a clock or a file.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.signing import (
    dump_private_key,
    generate_key,
    load_private_key,
    load_public_key,
    spki,
)

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.base.secret import Secret

__all__ = [
    "CertificateAuthority",
    "Usage",
    "certificate_digest",
    "generate_key",
    "load_certificate",
    "self_signed",
    "spki",
    "uris",
]

Usage = Literal["client", "server", "peer"]
"""Extended key usage of a leaf; `peer` is both."""

_BACK = timedelta(minutes=5)
_MOST_BACK = timedelta(hours=2)
_USAGES: dict[Usage, tuple[x509.ObjectIdentifier, ...]] = {
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "server": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "peer": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """A self-signed P-256 authority and its private key. Make one with `create` or `load`."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(
        cls, common_name: str, *, now: datetime, lifetime: timedelta
    ) -> CertificateAuthority:
        """Make a new authority with a new key; it may sign leaves only (path length 0)."""
        key = generate_key()
        name = _name(common_name, ())
        builder = (
            _builder(name, name, key.public_key(), now - _BACK, now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
        )
        return cls(certificate=builder.sign(key, hashes.SHA256()), private_key=key)

    @classmethod
    def load(cls, cert_pem: bytes, key_pem: Secret) -> CertificateAuthority:
        """Read an authority: one PEM certificate and its PEM private key.

        Raises:
            FormatError: not PEM, not P-256, or not the certificate of an authority.
            Untrusted: the key is another certificate's, or the self-signature does not hold.
        """
        certificate, key = load_certificate(cert_pem), load_private_key(key_pem)
        try:
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except (x509.ExtensionNotFound, ValueError):
            raise FormatError("CA certificate: basicConstraints is missing") from None
        if not basic.value.ca or not basic.critical:  # RFC 5280, section 4.2.1.9
            raise FormatError("CA certificate: basicConstraints is not critical, CA:TRUE")
        public_key = _p256(certificate)
        if spki(public_key) != spki(key.public_key()):
            raise Untrusted("CA: the private key does not belong to the certificate")
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, ValueError, TypeError):
            raise Untrusted("CA certificate: its self-signature does not hold") from None
        return cls(certificate=certificate, private_key=key)

    @property
    def certificate_pem(self) -> bytes:
        """The authority's certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> Secret:
        """The authority's private key (PKCS#8)."""
        return dump_private_key(self.private_key)

    def issue(
        self,
        public_key_der: bytes,
        *,
        common_name: str,
        organizations: tuple[str, ...] = (),
        dns: tuple[str, ...] = (),
        ips: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        usage: Usage,
        now: datetime,
        lifetime: timedelta,
        since: datetime | None = None,
    ) -> bytes:
        """Certify a P-256 public key (DER SubjectPublicKeyInfo); gives the certificate in PEM.

        `since`: a time to be trusted more than `now`, which comes from a clock that may have jumped
        ahead: what is good only later, nobody else takes now. Two hours back at most: after a
        longer sleep the clock is right, and a certificate must be young by it.

        Raises:
            FormatError: the key is not P-256, or an address is not one.
        """
        names: list[x509.GeneralName] = [x509.DNSName(d) for d in dns]
        try:
            names += [x509.IPAddress(ipaddress.ip_address(i)) for i in ips]
        except ValueError as error:
            raise FormatError(f"certificate of {common_name}: {error}") from None
        names += [x509.UniformResourceIdentifier(u) for u in uris]
        # a leaf that outlives its issuer would fail later, far from its cause
        end = min(now + lifetime, self.certificate.not_valid_after_utc)
        since = max(min(now, since or now), now - _MOST_BACK)
        start = max(since - _BACK, self.certificate.not_valid_before_utc)
        subject = _name(common_name, organizations)
        public_key = load_public_key(public_key_der)
        builder = (
            _builder(subject, self.certificate.subject, public_key, start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.private_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def self_signed(
    private_key: ec.EllipticCurvePrivateKey, *, common_name: str, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Certify a key by itself: the leaf of a channel whose proof is not its certificate."""
    name = _name(common_name, ())
    builder = _builder(name, name, private_key.public_key(), now - _BACK, now + lifetime)
    return builder.add_extension(_key_usage(ca=False), critical=True).sign(
        private_key, hashes.SHA256()
    )


def load_certificate(pem: bytes) -> x509.Certificate:
    """Read exactly one PEM certificate.

    Raises:
        FormatError: none, several, or not a certificate.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise FormatError(f"certificate: not PEM: {error}") from None
    if len(certificates) != 1:
        raise FormatError(f"certificate: {len(certificates)} in one file, want 1")
    return certificates[0]


def certificate_digest(pem: bytes) -> bytes:
    """Give the SHA-256 (32 bytes) of a PEM certificate's DER; independent of PEM's spelling.

    Raises:
        FormatError: see `load_certificate`.
    """
    return hashlib.sha256(load_certificate(pem).public_bytes(Encoding.DER)).digest()


def uris(certificate: x509.Certificate) -> tuple[str, ...]:
    """Give the URIs of a certificate's subject alternative name; empty if it has none.

    Raises:
        FormatError: the extension cannot be read.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise FormatError(f"certificate: subject alternative name: {error}") from None
    return tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier))


def _p256(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError(f"CA certificate: key is {type(key).__name__}, want ECDSA P-256")
    return key


def _name(common_name: str, organizations: tuple[str, ...]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
