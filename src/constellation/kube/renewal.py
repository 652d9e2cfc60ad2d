"""When a node asks for new certificates, and whether what it got is its own. Pure.

A JoinService that was judged gave them; they are looked at all the same, since a certificate that
does not fit would take the place of one that works. Sources: design, section 10 ("Admission");
RFC 5280, sections 4.1.2.5 and 4.2.1.6; Kubernetes, "Using Node Authorization".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.base.errors import FormatError, Rejected, Untrusted
from constellation.crypto.x509 import load_certificate
from constellation.kube.service_identity import ServiceIdentity, dump_identity

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Mine", "Renewed", "due", "expired", "require_mine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a JoinService gave, PEM; `kubelet_client` None: it was not asked for."""

    service: bytes
    kubelet_serving: bytes
    kubelet_client: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mine:
    """What this node knows of itself: identity, own address, public keys (DER), both CAs."""

    identity: ServiceIdentity
    address: str
    service_public_key: bytes
    kubelet_serving_public_key: bytes
    kubelet_client_public_key: bytes
    services_ca: x509.Certificate
    cluster_ca: x509.Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """Names in one certificate: subject (RFC 4514), and all alternative names as (kind, text)."""

    subject: str
    names: frozenset[tuple[str, str]]


def due(certificate: x509.Certificate, *, now: datetime) -> bool:
    """Say whether half of a certificate's life is over: then there is time for many attempts."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) / 2


def expired(certificate: x509.Certificate, *, now: datetime) -> bool:
    """Say whether a certificate's time is over."""
    return now >= certificate.not_valid_after_utc


def require_mine(renewed: Renewed, *, mine: Mine, now: datetime) -> None:
    """Check everything that came: issuer, key, names, and that it is good now and for a while.

    Raises:
        FormatError: not one PEM certificate.
        Untrusted: this cluster's CA did not issue it.
        Rejected: it is for another key or name, or its time is not now; with every finding.
    """
    name = mine.identity.name
    node = f"system:node:{name}"
    addresses = frozenset({("IP address", mine.address)})
    found = list(
        _findings(
            "service certificate",
            renewed.service,
            ca=mine.services_ca,
            public_key=mine.service_public_key,
            expected=_Expected(
                subject=f"CN={name}", names=addresses | {("URI", dump_identity(mine.identity))}
            ),
            now=now,
        )
    )
    found += _findings(
        "kubelet's serving certificate",
        renewed.kubelet_serving,
        ca=mine.cluster_ca,
        public_key=mine.kubelet_serving_public_key,
        expected=_Expected(
            subject=f"CN={node},O=system:nodes", names=addresses | {("DNS name", name)}
        ),
        now=now,
    )
    if renewed.kubelet_client is not None:
        found += _findings(
            "kubelet's client certificate",
            renewed.kubelet_client,
            ca=mine.cluster_ca,
            public_key=mine.kubelet_client_public_key,
            expected=_Expected(subject=f"CN={node},O=system:nodes", names=frozenset()),
            now=now,
        )
    if found:
        raise Rejected(tuple(found))


def _findings(
    what: str,
    pem: bytes,
    *,
    ca: x509.Certificate,
    public_key: bytes,
    expected: _Expected,
    now: datetime,
) -> tuple[str, ...]:
    certificate = load_certificate(pem)
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        raise Untrusted(f"{what}: this cluster's CA did not issue it") from None
    found = []
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key != public_key:
        found.append(f"{what}: for another key than this node's")
    if (subject := certificate.subject.rfc4514_string()) != expected.subject:
        found.append(f"{what}: found subject {subject[:200]!r}, expected {expected.subject!r}")
    if (names := _names(certificate, what)) != expected.names:
        found.append(f"{what}: found names {_shown(names)}, expected {_shown(expected.names)}")
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start or due(certificate, now=now):
        found.append(f"{what}: good from {start} to {end}, expected one that is young at {now}")
    return tuple(found)


def _names(certificate: x509.Certificate, what: str) -> frozenset[tuple[str, str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    except ValueError as error:
        raise FormatError(f"{what}: subject alternative name: {error}") from None
    kinds: dict[type[object], str] = {
        x509.DNSName: "DNS name",
        x509.IPAddress: "IP address",
        x509.UniformResourceIdentifier: "URI",
    }
    return frozenset((kinds.get(type(n), type(n).__name__), str(n.value)) for n in names)


def _shown(names: frozenset[tuple[str, str]]) -> str:
    return ", ".join(f"{kind} {text[:200]}" for kind, text in sorted(names)) or "none"
