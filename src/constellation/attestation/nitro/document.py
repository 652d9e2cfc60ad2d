"""An AWS Nitro attestation document: what the Nitro hypervisor signed about a VM or an enclave.

 1. COSE_Sign1: a CBOR array of protected header, unprotected header, payload, signature; with or
    without tag 18. The protected header is {1: -35} (ES384) and nothing else, the other is empty.
 2. The payload is a map, of definite or indefinite length: `nitrotpm_pcrs` makes it a NitroTPM
    document, `pcrs` an enclave's. It has one of them; the caller says which it expects.
 3. `certificate` leads through `cabundle` to AWS' root, every certificate valid at `now`.
 4. The signature over "Signature1", protected header and payload is that certificate's key's.
 5. `nonce`, `user_data`, `public_key` were chosen by the VM's software: the hypervisor copies them.

Source: AWS, "NitroTPM attestation document content" and "Nitro Enclaves: verifying the root of
trust"; RFC 9052, section 4.4; RFC 8949. Afterwards trusted: the registers, module id and time, as
far as AWS is; and that this VM's software asked with that nonce.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import TYPE_CHECKING

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from constellation.attestation import chain
from constellation.attestation.model import Authentic
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

__all__ = ["Document", "Kind", "parse", "verify"]

_MAX_BYTES = 16 * 1024  # AWS: a document is at most this long
_MAX_DEPTH = 6
_PROTECTED = bytes.fromhex("a1013822")  # {1: -35}: alg ES384 (RFC 9053, section 2.1)
_COSE_SIGN1_TAG = b"\xd2"
_SIGNATURE_BYTES = 96
_PCR_BYTES = {"SHA384": 48}
_MAX_PCRS = 32
_MAX_FIELD_BYTES = 1024
_MAX_CABUNDLE = 8
_FIELDS = frozenset(
    {
        *("module_id", "digest", "timestamp", "certificate", "cabundle"),
        *("public_key", "user_data", "nonce"),
    }
)


class Kind(StrEnum):
    """Whose document it is: the name of its registers' field."""

    NITRO_TPM = "nitrotpm_pcrs"
    ENCLAVE = "pcrs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed document, untrusted.

    `timestamp_ms` since 1970; `pcrs` number -> 48 bytes (SHA-384); `signed` the bytes that were
    signed, `signature` r ‖ s (96 bytes). `public_key`, `user_data`, `nonce`: empty where absent.
    """

    kind: Kind
    module_id: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: x509.Certificate
    cabundle: tuple[x509.Certificate, ...]
    public_key: bytes
    user_data: bytes
    nonce: bytes
    signed: bytes
    signature: bytes


def parse(data: bytes) -> Document:
    """Read a document of either kind.

    Raises:
        FormatError: not COSE_Sign1 with ES384, or not a document's fields.
    """
    if len(data) > _MAX_BYTES:
        raise FormatError(f"Nitro document: {len(data)} bytes, at most {_MAX_BYTES} are read")
    untagged = data[1:] if data.startswith(_COSE_SIGN1_TAG) else data
    outer = _decode(untagged, "Nitro document")
    match outer:
        case [
            bytes() as protected,
            dict() as unprotected,
            bytes() as payload,
            bytes() as signature,
        ]:
            pass
        case _:
            raise FormatError("Nitro document: not a COSE_Sign1 of four parts")
    if protected != _PROTECTED or unprotected:
        raise FormatError(
            f"Nitro document: protected header {protected[:16].hex()}, want ES384 alone"
        )
    if cbor2.dumps(outer) != untagged:
        # one spelling only: what was signed is then all there is
        raise FormatError("Nitro document: COSE_Sign1 is not in the shortest form")
    if len(signature) != _SIGNATURE_BYTES:
        raise FormatError(f"Nitro document: signature of {len(signature)} bytes, want 96")
    fields = _decode(payload, "Nitro document's payload")
    if not isinstance(fields, dict):
        raise FormatError("Nitro document: its payload is not a map")
    kind = _kind(fields)
    return Document(
        kind=kind,
        module_id=_text(fields, "module_id"),
        timestamp_ms=_number(fields, "timestamp"),
        pcrs=_pcrs(fields[kind], size=_PCR_BYTES.get(_text(fields, "digest"), 0)),
        certificate=chain.load(_bytes(fields, "certificate"), what="Nitro certificate"),
        cabundle=_cabundle(fields["cabundle"]),
        public_key=_optional(fields, "public_key"),
        user_data=_optional(fields, "user_data"),
        nonce=_optional(fields, "nonce"),
        signed=cbor2.dumps(["Signature1", protected, b"", payload]),
        signature=signature,
    )


def verify(
    document: Document,
    *,
    kind: Kind,
    nonce: bytes,
    roots: tuple[x509.Certificate, ...],
    now: datetime,
) -> Authentic[Document]:
    """Verify a document that must be of `kind` and made for `nonce`.

    Args:
        document: parsed.
        kind: NitroTPM or enclave; the other is refused.
        nonce: all of it; empty only where a published document had none.
        roots: AWS' root certificates.
        now: the time; leaves live three hours.

    Raises:
        Untrusted: the first check that fails.
    """
    if document.kind is not kind:
        raise Untrusted(f"Nitro document: has {document.kind}, expected {kind}")
    chain.verify(
        document.certificate,
        intermediates=document.cabundle,
        roots=roots,
        now=now,
        what="Nitro certificate",
    )
    key = chain.public_key(document.certificate)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Untrusted("Nitro certificate: its key is not ECDSA P-384")
    half = _SIGNATURE_BYTES // 2
    r, s = (
        int.from_bytes(n, "big") for n in (document.signature[:half], document.signature[half:])
    )
    try:
        key.verify(encode_dss_signature(r, s), document.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Untrusted("Nitro document: its certificate did not make the signature") from None
    if not hmac.compare_digest(document.nonce, nonce):
        raise Untrusted(f"Nitro document: nonce {document.nonce.hex()}, expected {nonce.hex()}")
    return Authentic(document)


def _decode(data: bytes, what: str) -> object:
    stream = BytesIO(data)
    try:
        value: object = cbor2.CBORDecoder(
            stream, max_depth=_MAX_DEPTH, allow_duplicate_keys=False, read_size=1
        ).decode()
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise FormatError(f"{what}: at {stream.tell():#x}: not CBOR: {error}") from None
    if stream.tell() != len(data):
        raise FormatError(f"{what}: bytes left over at {stream.tell():#x}")
    return value


def _kind(fields: Mapping[object, object]) -> Kind:
    found = [kind for kind in Kind if kind in fields]
    if len(found) != 1:
        raise FormatError(f"Nitro document: {len(found)} of nitrotpm_pcrs and pcrs, want 1")
    (kind,) = found
    if strange := fields.keys() ^ (_FIELDS | {str(kind)}):
        raise FormatError(f"Nitro document: field {min(map(str, strange))[:40]} missing or unknown")
    return kind


def _pcrs(value: object, *, size: int) -> dict[int, bytes]:
    if not size:
        raise FormatError("Nitro document: digest is not SHA384")
    if not isinstance(value, dict) or not 0 < len(value) <= _MAX_PCRS:
        raise FormatError("Nitro document: its registers are not a map of 1 to 32")
    found: dict[int, bytes] = {}
    for number, digest in value.items():
        if type(number) is not int or not 0 <= number < _MAX_PCRS:
            raise FormatError(f"Nitro document: register {str(number)[:20]}")
        if not isinstance(digest, bytes) or len(digest) != size:
            raise FormatError(f"Nitro document: PCR {number} has not {size} bytes")
        found[number] = digest
    return found


def _cabundle(value: object) -> tuple[x509.Certificate, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= _MAX_CABUNDLE:
        raise FormatError(f"Nitro document: cabundle is not a list of 1 to {_MAX_CABUNDLE}")
    if not all(isinstance(der, bytes) for der in value):
        raise FormatError("Nitro document: cabundle holds something else than bytes")
    return tuple(chain.load(der, what=f"Nitro cabundle[{i}]") for i, der in enumerate(value))


def _text(fields: Mapping[object, object], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_FIELD_BYTES:
        raise FormatError(f"Nitro document: {name} is not a text")
    return value


def _number(fields: Mapping[object, object], name: str) -> int:
    value = fields[name]
    if type(value) is not int or not 0 < value < 1 << 64:
        raise FormatError(f"Nitro document: {name} is not a number of 64 bits")
    return value


def _bytes(fields: Mapping[object, object], name: str) -> bytes:
    value = fields[name]
    if not isinstance(value, bytes):
        raise FormatError(f"Nitro document: {name} is not bytes")
    return value


def _optional(fields: Mapping[object, object], name: str) -> bytes:
    value = b"" if fields[name] is None else _bytes(fields, name)
    if len(value) > _MAX_FIELD_BYTES:
        raise FormatError(f"Nitro document: {name} has {len(value)} bytes, at most 1024")
    return value
