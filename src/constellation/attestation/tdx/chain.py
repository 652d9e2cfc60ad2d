"""Whether a certificate, a revocation list or a statement is Intel's, at a given time.

Intel's hierarchy is fixed: the root certifies the two PCK CAs and the TCB signing key; a PCK CA
certifies platforms and signs their revocation list; the root signs the list of its own. So chains
have a fixed length, fixed names, and a root that the caller pins byte for byte.

Results that depend on bytes alone (does this key's signature over those bytes hold?) are
remembered, keyed by all those bytes; times and revocation are looked at anew in each call. Source:
"Intel SGX PCK Certificate and Certificate Revocation List Profile Specification", revision 1.5;
RFC 5280, sections 4.1, 5.1 and 6.1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtensionOID, NameOID

from constellation.attestation.tdx.pck import load_certificate, split_pem
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.der import SEQUENCE, DerReader

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "PCK_CA_NAMES",
    "Chain",
    "check_not_revoked",
    "check_signature",
    "check_window",
    "common_name",
    "verify_crl",
    "verify_pck_chain",
    "verify_signing_chain",
]

ROOT_NAME = "Intel SGX Root CA"
PCK_CA_NAMES = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
PCK_NAME = "Intel SGX PCK Certificate"
TCB_SIGNING_NAME = "Intel SGX TCB Signing"

_MAX_CRL_BYTES = 1024 * 1024
_KNOWN_CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
_NOT_A_LIST = (ValueError, TypeError, x509.InvalidVersion, Warning)
_SHA256 = ec.ECDSA(hashes.SHA256())
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # AlgorithmIdentifier, RFC 5758


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A verified chain: `leaf` and its key, the authorities between, `root`; revocation not seen.

    `windows` has name, first and last moment of each certificate's validity, the root's first.
    """

    leaf: x509.Certificate
    leaf_key: ec.EllipticCurvePublicKey
    intermediates: tuple[x509.Certificate, ...]
    root: x509.Certificate
    windows: tuple[tuple[str, datetime, datetime], ...]


def verify_pck_chain(pem: bytes, *, roots: tuple[bytes, ...], now: datetime) -> Chain:
    """Verify a platform's chain: PCK certificate, PCK CA, root.

    Raises:
        FormatError: not three certificates in PEM.
        Untrusted: a signature, name, constraint or time does not hold; the root is not pinned.
    """
    chain = _pck_chain(pem, roots)
    _check_validity(chain, now)
    return chain


def verify_signing_chain(pem: bytes, *, roots: tuple[bytes, ...], now: datetime) -> Chain:
    """Verify the chain of the key that signs TCB info and QE identities: leaf, and root if given.

    Raises:
        FormatError: not one or two certificates in PEM.
        Untrusted: a signature, name, constraint or time does not hold; the root is not pinned.
    """
    if not pem:
        raise Untrusted("collateral: TCB signing chain is missing")
    chain = _signing_chain(pem, roots)
    _check_validity(chain, now)
    return chain


def verify_crl(
    der: bytes, *, issuer: x509.Certificate, now: datetime, what: str
) -> x509.CertificateRevocationList:
    """Verify a revocation list: by this issuer, and current.

    Raises:
        FormatError: not a revocation list.
        Untrusted: missing, of another issuer, its signature does not hold, not yet or no longer
            valid, or of a part of the certificates only.
    """
    if not der:
        raise Untrusted(f"collateral: {what} is missing")
    crl = _signed_crl(der, issuer, what)
    if crl.next_update_utc is None:
        raise Untrusted(f"{what}: it does not say until when it holds")
    check_window(crl.last_update_utc, crl.next_update_utc, now=now, what=what)
    return crl


def check_not_revoked(certificate: x509.Certificate, crl: x509.CertificateRevocationList) -> None:
    """Refuse a certificate that its issuer's list names.

    Raises:
        Untrusted: it is revoked.
    """
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is not None:
        raise Untrusted(
            f"{_name(certificate)}: revoked on {entry.revocation_date_utc:%Y-%m-%d}, "
            f"serial {certificate.serial_number:#x}"
        )


def check_window(first: datetime, last: datetime, *, now: datetime, what: str) -> None:
    """Refuse what does not hold at `now`.

    Raises:
        Untrusted: not yet valid, or expired.
    """
    if now < first:
        raise Untrusted(f"{what}: not yet valid: from {first}, now is {now}")
    if now > last:
        raise Untrusted(f"{what}: expired: valid until {last}, now is {now}")


def check_signature(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, *, what: str
) -> None:
    """Check an ECDSA P-256 SHA-256 signature in Intel's form, r ‖ s, 64 bytes.

    Raises:
        Untrusted: it does not hold.
    """
    if len(signature) != 64:  # noqa: PLR2004 - r and s
        raise Untrusted(f"{what}: signature of {len(signature)} bytes, want 64")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, _SHA256)
    except InvalidSignature:
        raise Untrusted(f"{what}: signature does not hold") from None


@functools.lru_cache(maxsize=512)
def _pck_chain(pem: bytes, roots: tuple[bytes, ...]) -> Chain:
    """Check all that does not depend on the time."""
    ders = split_pem(pem, what="PCK chain")
    if len(ders) != 3:  # noqa: PLR2004 - leaf, CA, root
        raise FormatError(f"PCK chain: {len(ders)} certificates, want 3")
    leaf, authority = (load_certificate(d, what="PCK chain") for d in ders[:2])
    root = _pinned(ders[2], roots)
    _check_name(root, (ROOT_NAME,), authority_below=1)
    _check_name(authority, PCK_CA_NAMES, authority_below=0)
    _check_name(leaf, (PCK_NAME,), authority_below=None)
    _check_issued(ders[1], ders[2])
    _check_issued(ders[0], ders[1])
    return Chain(
        leaf=leaf,
        leaf_key=_key(leaf),
        intermediates=(authority,),
        root=root,
        windows=_windows(root, authority, leaf),
    )


@functools.lru_cache(maxsize=64)
def _signing_chain(pem: bytes, roots: tuple[bytes, ...]) -> Chain:
    """Check all that does not depend on the time."""
    what = "TCB signing chain"
    ders = split_pem(pem, what=what)
    if len(ders) > 2:  # noqa: PLR2004 - leaf, root
        raise FormatError(f"{what}: {len(ders)} certificates, want 2")
    leaf = load_certificate(ders[0], what=what)
    # without a root in the chain, the pinned one that has the issuer's name
    named = [r for r in roots if load_certificate(r, what="root").subject == leaf.issuer]
    candidates = list(ders[1:]) or named
    if not candidates:
        raise Untrusted(f"{what}: no pinned root is called {leaf.issuer.rfc4514_string()}")
    root = _pinned(candidates[0], roots)
    _check_name(root, (ROOT_NAME,), authority_below=1)
    # the root certifies PCK CAs too: only this name may speak about TCBs
    _check_name(leaf, (TCB_SIGNING_NAME,), authority_below=None)
    _check_issued(ders[0], candidates[0])
    return Chain(
        leaf=leaf,
        leaf_key=_key(leaf),
        intermediates=(),
        root=root,
        windows=_windows(root, leaf),
    )


def _pinned(der: bytes, roots: tuple[bytes, ...]) -> x509.Certificate:
    if der not in roots:
        raise Untrusted("Intel chain: its root certificate is none of the given roots")
    return load_certificate(der, what="root")


def _check_name(
    certificate: x509.Certificate, names: tuple[str, ...], *, authority_below: int | None
) -> None:
    """Check name and constraints; `authority_below` counts CAs beneath, None is for a leaf."""
    name = _name(certificate)
    if name not in names:
        raise Untrusted(f"Intel chain: certificate of {name!r}, want {' or '.join(names)}")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise Untrusted(f"{name}: unknown critical extension {extension.oid.dotted_string}")
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise Untrusted(f"{name}: it lacks {error.oid.dotted_string}") from None
    if authority_below is None:
        if basic.ca or usage.key_cert_sign or not usage.digital_signature:
            raise Untrusted(f"{name}: want a key that signs, and no certificates")
        return
    room = basic.path_length is None or basic.path_length >= authority_below
    if not basic.ca or not usage.key_cert_sign or not usage.crl_sign or not room:
        raise Untrusted(f"{name}: it may not certify")  # RFC 5280, section 6.1.4, k to n


def _key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError(f"{_name(certificate)}: its key is not ECDSA P-256")
    return key


def _windows(*certificates: x509.Certificate) -> tuple[tuple[str, datetime, datetime], ...]:
    return tuple((_name(c), c.not_valid_before_utc, c.not_valid_after_utc) for c in certificates)


def _check_validity(chain: Chain, now: datetime) -> None:
    # RFC 5280, section 4.1.2.5
    for name, first, last in chain.windows:
        if not first <= now <= last:
            check_window(first, last, now=now, what=f"certificate of {name}")


def _check_issued(der: bytes, issuer: bytes) -> None:
    if not _issued(der, issuer):
        name = _name(load_certificate(der, what="Intel chain"))
        raise Untrusted(f"Intel chain: the next certificate did not issue that of {name}")


@functools.lru_cache(maxsize=1024)
def _issued(der: bytes, issuer_der: bytes) -> bool:
    certificate = load_certificate(der, what="Intel chain")
    issuer = load_certificate(issuer_der, what="Intel chain")
    if certificate.issuer != issuer.subject:
        return False
    return _holds(der, certificate.signature, _key(issuer), what="Intel chain")


def _holds(der: bytes, signature: bytes, key: ec.EllipticCurvePublicKey, *, what: str) -> bool:
    """Tell whether a certificate's or list's signature holds, over the very bytes it came in.

    The X.509 library would write them anew for that, which takes as long as the signature.
    """
    outer = DerReader(der, what=what).enter(SEQUENCE, "outer sequence")
    signed = outer.raw(SEQUENCE, "what is signed")  # RFC 5280, sections 4.1.1.1 and 5.1.1.1
    if outer.raw(SEQUENCE, "signatureAlgorithm") != _ECDSA_WITH_SHA256:
        return False
    try:
        key.verify(signature, signed, _SHA256)
    except InvalidSignature:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _load_crl(der: bytes, what: str) -> x509.CertificateRevocationList:
    if len(der) > _MAX_CRL_BYTES:
        raise FormatError(f"{what}: {len(der)} bytes, at most {_MAX_CRL_BYTES} are read")
    try:
        crl = x509.load_der_x509_crl(der)
        if not der.endswith(b"\0" + crl.signature):
            raise FormatError(f"{what}: its signature is not whole bytes")
        _ = crl.issuer, crl.extensions, crl.last_update_utc, crl.next_update_utc
    except (*_NOT_A_LIST, x509.DuplicateExtension) as error:
        raise FormatError(f"{what}: not a revocation list: {error}") from None
    return crl


@functools.lru_cache(maxsize=256)
def _signed_crl(der: bytes, issuer: x509.Certificate, what: str) -> x509.CertificateRevocationList:
    """Check all that does not depend on the time."""
    crl = _load_crl(der, what)
    if crl.issuer != issuer.subject:
        raise Untrusted(
            f"{what}: of {crl.issuer.rfc4514_string()}, want {issuer.subject.rfc4514_string()}"
        )
    if not _holds(der, crl.signature, _key(issuer), what=what):
        raise Untrusted(f"{what}: its issuer did not make this signature")
    # RFC 5280, section 5.2: no extension that Intel uses is critical; those that say that a list
    # is of a part only are
    if any(extension.critical for extension in crl.extensions):
        raise Untrusted(f"{what}: critical extension")
    return crl


def common_name(name: x509.Name) -> str:
    """Give the one common name of a subject or issuer; all of it where there is not just one."""
    names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else name.rfc4514_string()


def _name(certificate: x509.Certificate) -> str:
    return common_name(certificate.subject)
