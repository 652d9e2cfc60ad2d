"""Whether a cloud's certificate leads to one of its published roots, at a given time.

1. From the leaf upwards, each certificate is issued and signed by the next; the last one by a root
   that the caller trusts, byte for byte.
2. Every certificate on the way, the root too, is valid at `now` (RFC 5280, section 6.1.3, a.2).
3. Every issuer is an authority: basicConstraints CA, room left in pathLenConstraint, keyCertSign
   (section 6.1.4, k to n).
4. No certificate has a critical extension that we do not know (section 6.1.4, o), and none is
   signed with SHA-1.

Source: RFC 5280. Revocation is not looked at here: no cloud whose chains come through this module
publishes lists that can be checked offline; the platforms say so where it matters. Chips' chains
(AMD, Intel) have procedures of their own. Afterwards the leaf's content is trusted as far as the
root's owner is.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID

from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["MAX_CERTIFICATE_BYTES", "load", "load_all", "name_of", "public_key", "spki", "verify"]

MAX_CERTIFICATE_BYTES = 8192
_MAX_CHAIN = 8
_MAX_INTERMEDIATES = 16
_NOT_A_CERTIFICATE = (
    *(ValueError, TypeError, UnsupportedAlgorithm, CryptographyDeprecationWarning),
    *(x509.InvalidVersion, x509.DuplicateExtension),
)
_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        # the TPM's make, in AK certificates (TCG EK Credential Profile 2.5, section 3.2.9)
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def load(der: bytes, *, what: str) -> x509.Certificate:
    """Read one certificate, DER, nothing after it.

    Raises:
        FormatError: not a certificate, too long, or bytes left over.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise FormatError(f"{what}: {len(der)} bytes, at most {MAX_CERTIFICATE_BYTES} are read")
    try:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.serial_number <= 0:  # RFC 5280, section 4.1.2.2
            raise FormatError(f"{what}: its serial number is not positive")
        if certificate.public_bytes(Encoding.DER) != der:
            raise FormatError(f"{what}: not in DER")
        if not der.endswith(b"\0" + certificate.signature):
            # X.690, section 8.6.2: no unused bits; all else is inside the signature
            raise FormatError(f"{what}: its signature is not whole bytes")
        _ = certificate.extensions
        certificate.public_key()
        for issuer in (False, True):
            name_of(certificate, issuer=issuer)
    except _NOT_A_CERTIFICATE as error:
        raise FormatError(f"{what}: not a certificate: {error}") from None
    return certificate


def load_all(data: bytes, *, what: str) -> tuple[x509.Certificate, ...]:
    """Read one DER certificate, or one or more in PEM, in their order.

    Raises:
        FormatError: neither, or more than a chain's length.
    """
    if b"-----BEGIN" not in data:
        return (load(data, what=what),)
    if len(data) > 2 * _MAX_CHAIN * MAX_CERTIFICATE_BYTES:
        raise FormatError(f"{what}: {len(data)} bytes are too many for a chain")
    try:
        found = x509.load_pem_x509_certificates(data)
    except _NOT_A_CERTIFICATE as error:
        raise FormatError(f"{what}: not PEM: {error}") from None
    if len(found) > _MAX_CHAIN:
        raise FormatError(f"{what}: {len(found)} certificates, at most {_MAX_CHAIN} are read")
    return tuple(load(c.public_bytes(Encoding.DER), what=what) for c in found)


def public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes:
    """Give a certificate's key.

    Raises:
        FormatError: of a kind or with numbers that are no key.
    """
    try:
        return certificate.public_key()
    except _NOT_A_CERTIFICATE as error:
        raise FormatError(f"certificate: its key: {error}") from None


def spki(certificate: x509.Certificate) -> bytes:
    """Give the SubjectPublicKeyInfo (DER) of a certificate's key."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public_key(certificate).public_bytes(*form)


def verify(
    leaf: x509.Certificate,
    *,
    intermediates: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    now: datetime,
    what: str,
) -> tuple[x509.Certificate, ...]:
    """Verify that `leaf` leads to one of `roots`; gives the path, leaf first, root last.

    `intermediates` may hold more than is needed, and roots: only `roots` are trusted.

    Raises:
        Untrusted: the first check that fails; says for which certificate.
    """
    if len(intermediates) > _MAX_INTERMEDIATES:
        raise Untrusted(f"{what}: {len(intermediates)} intermediates, at most {_MAX_INTERMEDIATES}")
    trusted = {_digest(root) for root in roots}
    path = [leaf]
    if _digest(leaf) in trusted:
        raise Untrusted(f"{what}: it is the root's own certificate")
    while _digest(path[-1]) not in trusted:
        if len(path) > _MAX_CHAIN:
            raise Untrusted(f"{what}: chain of more than {_MAX_CHAIN} certificates")
        path.append(_issuer(path[-1], (*roots, *intermediates), now=now, what=what))
    for depth, certificate in enumerate(path):
        try:
            _check(certificate, now=now)
            if depth:
                # a path length counts the authorities between this one and the leaf
                _check_authority(certificate, below=depth - 1)
        except Untrusted as error:
            raise Untrusted(f"{what}: {name_of(certificate)}: {error}") from None
    return tuple(path)


def _issuer(
    certificate: x509.Certificate,
    candidates: tuple[x509.Certificate, ...],
    *,
    now: datetime,
    what: str,
) -> x509.Certificate:
    found, forged = [], False
    for candidate in candidates:
        if candidate == certificate:
            continue
        try:
            # compares the names' bytes first, then the signature
            certificate.verify_directly_issued_by(candidate)
        except InvalidSignature:
            forged = True
        except _NOT_A_CERTIFICATE:
            continue
        else:
            found.append(candidate)
    if not found:
        problem = "did not sign it" if forged else "was not given"
        raise Untrusted(
            f"{what}: {name_of(certificate)}: issuer {name_of(certificate, issuer=True)} {problem}"
        )
    # the same key may be certified several times: one that is valid now comes first
    return min(found, key=lambda c: not c.not_valid_before_utc <= now <= c.not_valid_after_utc)


def _check(certificate: x509.Certificate, *, now: datetime) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        raise Untrusted(f"valid from {first} to {last}, now is {now}")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise Untrusted(f"unknown critical extension {extension.oid.dotted_string}")
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm as error:
        raise Untrusted(str(error)) from None
    if not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
        raise Untrusted(f"signed with {algorithm.name if algorithm else 'no hash'}")


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise Untrusted(f"as an authority it lacks {error.oid.dotted_string}") from None
    if not basic.ca or not usage.key_cert_sign:
        raise Untrusted("it may not issue certificates")
    if basic.path_length is not None and basic.path_length < below:
        raise Untrusted(f"path length {basic.path_length}, {below} authorities below it")


def _digest(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def name_of(certificate: x509.Certificate, *, issuer: bool = False) -> str:
    """Give the subject (or issuer) for people to read; the serial number where it has no name.

    Raises:
        FormatError: a name that is none; `load` has looked.
    """
    with warnings.catch_warnings():
        # Google's names are longer than X.520 allows; for people to read, nothing is decided here
        warnings.simplefilter("ignore")
        try:
            name = certificate.issuer if issuer else certificate.subject
            return name.rfc4514_string() or f"serial {certificate.serial_number:#x}"
        except ValueError:
            return f"serial {certificate.serial_number:#x}"
        except TypeError as error:  # text of a type that its attribute cannot have
            raise FormatError(f"certificate: {error}") from None
