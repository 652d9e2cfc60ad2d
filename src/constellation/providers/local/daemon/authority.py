"""The local cloud's own certificate authority: it says which AKs belong to TPMs that it made.

The key stays in the cloud's folder, readable by root only. It vouches for development machines:
`local-vtpm` is refused by every real provider's policy (design, section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from constellation.base.clock import now
from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto.x509 import CertificateAuthority, load_certificate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority", "ensure"]

_LIFETIME = timedelta(days=3650)
_BACK = timedelta(hours=2)
"""A node whose clock is behind would take its young neighbours' evidence for not valid yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The authority, ready to certify."""

    ca: CertificateAuthority

    @property
    def certificate_der(self) -> bytes:
        """Its certificate, DER: the trust root of this cloud's evidence."""
        return self.ca.certificate.public_bytes(Encoding.DER)

    def certify(self, public_key_der: bytes) -> bytes:
        """Certify an AK (SubjectPublicKeyInfo, DER); gives the certificate in DER."""
        pem = self.ca.issue(
            public_key_der,
            common_name="constellation local AK",
            usage="client",
            now=now(),
            lifetime=_LIFETIME,
            since=now() - _BACK,
        )
        return load_certificate(pem).public_bytes(Encoding.DER)


def ensure(folder: Path) -> Authority:
    """Read the authority from its folder, or make it there.

    Raises:
        FormatError, Untrusted: what lies there is no authority.
    """
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if certificate.exists() and key.exists():
        ca = CertificateAuthority.load(certificate.read_bytes(), Secret(key.read_bytes()))
    else:
        ca = CertificateAuthority.create(
            f"constellation local cloud {folder.name}", now=now() - _BACK, lifetime=_LIFETIME
        )
        write_atomic(key, ca.key_pem.reveal(), mode=0o600)
        write_atomic(certificate, ca.certificate_pem)
    return Authority(ca=ca)
