"""Authorities that certify with real keys whatever a test wants, also what they must not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["Authority", "Key", "make"]

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and the key that signs below it."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def root(cls, name: str, *, now: datetime, curve: ec.EllipticCurve | None = None) -> Self:
        key = ec.generate_private_key(curve or ec.SECP384R1())
        return cls(make(name, key, issuer=None, now=now, ca=True), key)

    def authority(self, name: str, *, now: datetime, **how: Any) -> Authority:
        key = ec.generate_private_key(ec.SECP384R1())
        return Authority(make(name, key, issuer=self, now=now, **({"ca": True} | how)), key)

    def leaf(self, name: str, *, now: datetime, **how: Any) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        return make(name, key, issuer=self, now=now, **how)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def make(
    name: str,
    key: Key | CertificatePublicKeyTypes,
    *,
    issuer: Authority | None,
    now: datetime,
    ca: bool = False,
    signs: bool | None = None,
    constraints: bool = True,
    path_length: int | None = None,
    critical: str = "",
    hashed: Any = None,
    encrypts: bool = False,
    agrees: bool = False,
    lifetime: timedelta = timedelta(days=365),
    extensions: tuple[tuple[str, bytes], ...] = (),
) -> x509.Certificate:
    """Certify a key; `issuer` None signs with the key itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    public: Any = key.public_key() if isinstance(key, Key) else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + (lifetime * 10 if ca else lifetime))
        .add_extension(
            _usage(signs=ca if signs is None else signs, encrypts=encrypts, agrees=agrees),
            critical=True,
        )
    )
    if constraints:
        basic = x509.BasicConstraints(ca=ca, path_length=path_length)
        builder = builder.add_extension(basic, critical=True)
    unknown = [(oid, value, False) for oid, value in extensions]
    unknown += [(critical, b"\5\0", True)] if critical else []
    for oid, value, is_critical in unknown:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=is_critical)
    signer: Any = issuer.key if issuer else key
    return builder.sign(signer, hashed or hashes.SHA384())


def _usage(*, signs: bool, encrypts: bool, agrees: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not encrypts and not agrees,
        content_commitment=False,
        key_encipherment=encrypts,
        data_encipherment=False,
        key_agreement=agrees,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
