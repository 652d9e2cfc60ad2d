"""How this system signs: ECDSA P-256 with SHA-256 over label, clusterID, purpose and message.

Every part is preceded by its length (4 bytes, big-endian), so a signature made for one label,
cluster or purpose is never valid for another. Sources: FIPS 186-5, section 6; design, section 6.
After `verify` returned, the holder of the private key has signed exactly these four parts.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from constellation.base.binary import Writer
from constellation.base.errors import FormatError, Untrusted
from constellation.base.secret import Secret

__all__ = [
    "dump_private_key",
    "generate_key",
    "load_private_key",
    "load_public_key",
    "load_public_key_pem",
    "sign",
    "signed_bytes",
    "spki",
    "verify",
]

_LENGTH_BYTES = 4
_ALGORITHM = ec.ECDSA(hashes.SHA256())


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Give the SubjectPublicKeyInfo (DER, 91 bytes for P-256; RFC 5480)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(
    private_key: ec.EllipticCurvePrivateKey,
    message: bytes,
    *,
    label: str,
    cluster_id: bytes,
    purpose: str,
) -> bytes:
    """Sign a message for one label, cluster and purpose; gives the DER signature."""
    to_sign = signed_bytes(message, label=label, cluster_id=cluster_id, purpose=purpose)
    return private_key.sign(to_sign, _ALGORITHM)


def verify(
    public_key_der: bytes,
    signature: bytes,
    message: bytes,
    *,
    label: str,
    cluster_id: bytes,
    purpose: str,
) -> None:
    """Check a signature made by `sign` with the same label, cluster and purpose.

    Raises:
        FormatError: the public key is not a P-256 SubjectPublicKeyInfo.
        Untrusted: the signature does not hold.
    """
    to_sign = signed_bytes(message, label=label, cluster_id=cluster_id, purpose=purpose)
    try:
        load_public_key(public_key_der).verify(signature, to_sign, _ALGORITHM)
    except InvalidSignature:
        raise Untrusted(
            f"signature for {purpose!r} ({label}) does not hold: expected one by the key that "
            "this cluster names, over this very message"
        ) from None


def signed_bytes(message: bytes, *, label: str, cluster_id: bytes, purpose: str) -> bytes:
    """Give the bytes that are signed: four parts, each after its length (4 bytes, big-endian)."""
    out = Writer(order="big")
    for part in (label.encode(), cluster_id, purpose.encode(), message):
        out.sized(part, _LENGTH_BYTES)
    return out.done()


def load_public_key(public_key_der: bytes) -> ec.EllipticCurvePublicKey:
    """Read a P-256 public key (DER SubjectPublicKeyInfo).

    Raises:
        FormatError: not DER, or another kind of key.
    """
    try:
        key = load_der_public_key(public_key_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"public key: not a SubjectPublicKeyInfo: {error}") from None
    return _p256(key)


def load_public_key_pem(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Read a P-256 public key (PEM, "PUBLIC KEY"; RFC 7468, section 13).

    Raises:
        FormatError: not PEM, or another kind of key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"public key: not a PEM public key: {error}") from None
    return _p256(key)


def load_private_key(pem: Secret) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key (PEM, PKCS#8 or SEC 1, not encrypted).

    Raises:
        FormatError: not PEM, encrypted, or another kind of key.
    """
    try:
        key = load_pem_private_key(pem.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # the library's message is left out: it may quote what it could not read
        raise FormatError("private key: not an unencrypted PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError(f"private key: {_kind(key)}, want ECDSA P-256")
    return key


def dump_private_key(private_key: ec.EllipticCurvePrivateKey) -> Secret:
    """Write a private key as PKCS#8 PEM, not encrypted (RFC 5958)."""
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret(pem)


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError(f"public key: {_kind(key)}, want ECDSA P-256")
    return key


def _kind(key: object) -> str:
    curve = getattr(key, "curve", None)
    return f"{type(key).__name__}" + (f" {curve.name}" if curve is not None else "")
