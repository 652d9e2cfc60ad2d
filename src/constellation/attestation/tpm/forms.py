"""The forms in which tools hand out AKs, signatures and register values, read into one.

AK: TPMT_PUBLIC, TPM2B_PUBLIC (its size before it), SubjectPublicKeyInfo in DER or PEM. Signature:
TPMT_SIGNATURE, a raw RSASSA signature (as long as the key), an ECDSA signature in DER. Registers: a
JSON object, number -> hexadecimal. Source: TCG TPM 2.0 Library, Part 2, sections 11.3.4 and 12.2;
RFC 5280, section 4.1.2.7; tpm2-tools 5 (`tpm2_quote`, `tpm2_print`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from constellation.attestation.tpm.public import Public
from constellation.attestation.tpm.structures import (
    Alg,
    EcdsaSignature,
    RsaSignature,
    parse_signature,
)
from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Key", "bank_of", "parse_ak", "parse_any_signature", "parse_pcrs"]

Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
"""An AK's key without its public area."""

_MAX_BYTES = 16 * 1024
_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+", re.ASCII)
_BANKS = {20: Alg.SHA1, 32: Alg.SHA256, 48: Alg.SHA384, 64: Alg.SHA512}


def parse_ak(data: bytes) -> Public | Key:
    """Read an AK: with its public area where the form has one.

    Raises:
        FormatError: none of the forms, or a key that is not RSA or EC.
    """
    if len(data) > _MAX_BYTES:
        raise FormatError(f"AK: {len(data)} bytes, at most {_MAX_BYTES} are read")
    try:
        if data.lstrip().startswith(b"-----"):
            return _key(load_pem_public_key(data))
        if data.startswith(b"\x30"):
            return _key(load_der_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"AK: {error}") from None
    if int.from_bytes(data[:2], "big") == len(data) - 2:
        return Public.parse(data[2:])
    return Public.parse(data)


def parse_any_signature(data: bytes, *, key: Key, hash_alg: Alg) -> bytes:
    """Read a signature in any form; gives a TPMT_SIGNATURE.

    Args:
        data: the signature.
        key: whose it is said to be; tells a raw RSA signature by its length.
        hash_alg: the hash of a form that does not name its own.

    Raises:
        FormatError: none of the forms.
    """
    if isinstance(key, rsa.RSAPublicKey) and len(data) == key.key_size // 8:
        return RsaSignature(scheme=Alg.RSASSA, hash=hash_alg, sig=data).pack()
    if isinstance(key, ec.EllipticCurvePublicKey) and data.startswith(b"\x30"):
        size = (key.key_size + 7) // 8
        try:
            r, s = (n.to_bytes(size, "big") for n in decode_dss_signature(data))
        except (ValueError, OverflowError) as error:
            raise FormatError(f"ECDSA signature: {error}") from None
        return EcdsaSignature(hash=hash_alg, signature_r=r, signature_s=s).pack()
    return parse_signature(data).pack()


def parse_pcrs(data: bytes) -> Mapping[int, bytes]:
    """Read register values of one bank: {"0": "hexadecimal", ...}.

    Raises:
        FormatError: not such JSON, or values of different sizes.
    """
    if len(data) > _MAX_BYTES:
        raise FormatError(f"PCRs: {len(data)} bytes, at most {_MAX_BYTES} are read")
    try:
        pcrs = json.loads(data, object_pairs_hook=_registers)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise FormatError(f"PCRs: not an object of hexadecimal values: {error}") from None
    if not isinstance(pcrs, dict):
        raise FormatError(f"PCRs: {type(pcrs).__name__}, want an object of hexadecimal values")
    bank_of(pcrs)
    return pcrs


def _registers(pairs: list[tuple[str, object]]) -> dict[int, bytes]:
    """Take the members of the object, each register once and in one spelling."""
    found: dict[int, bytes] = {}
    for name, value in pairs:
        if not _NUMBER.fullmatch(name) or int(name) in found:
            raise FormatError(f"PCRs: {name[:20]!r} is no register's number, or is there twice")
        if not isinstance(value, str) or not _HEX.fullmatch(value):
            raise FormatError(f"PCRs: the value of {name} is not hexadecimal")
        found[int(name)] = bytes.fromhex(value)
    return found


def bank_of(pcrs: Mapping[int, bytes]) -> Alg:
    """Give the bank whose registers have the size of these values.

    Raises:
        FormatError: none, of different sizes, or of a size that no bank has.
    """
    sizes = {len(value) for value in pcrs.values()}
    if len(sizes) != 1 or (bank := _BANKS.get(min(sizes))) is None:
        raise FormatError(f"PCRs: values of {sorted(sizes)} bytes, want one of 20, 32, 48, 64")
    return bank


def _key(key: object) -> Key:
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise FormatError(f"AK: {type(key).__name__}, want RSA or EC")
    return key
