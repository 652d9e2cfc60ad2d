"""Whether a quote is authentic: made by this AK in a TPM, over these registers, for this binding.

1. The AK is a key that a TPM made and never lets go, and that signs nothing made elsewhere.
2. The signature over the quote holds, with a hash that we accept.
3. The TPM made what it signed (TPM_GENERATED), and it is a quote.
4. extraData equals the qualifying data that the caller expects.
5. The registers selected are the registers given, and their digest is the one signed.

Source: TCG TPM 2.0 Library, revision 1.59: Part 1, section 31 (attestation), Part 2, section 10.12,
Part 3, section 18.4. What is trusted afterwards: the register values, *if* the AK is; who vouches
for the AK is the platform's matter (a certificate, a chip's report).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from constellation.attestation.model import Authentic
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.public import Attribute, Curve, Public, RsaKey
from constellation.attestation.tpm.structures import (
    GENERATED,
    ST_ATTEST_QUOTE,
    Alg,
    Attest,
    EcdsaSignature,
    RsaSignature,
    parse_signature,
)
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.tpm.structures import Signature

__all__ = ["AK_ATTRIBUTES", "Quote", "public_key", "verify", "verify_by_key"]

AK_ATTRIBUTES = (
    Attribute.RESTRICTED
    | Attribute.FIXED_TPM
    | Attribute.SIGN_ENCRYPT
    | Attribute.SENSITIVE_DATA_ORIGIN
)
"""What makes a key an AK; DECRYPT must be clear (Part 2, section 8.3.3)."""

_MIN_RSA_BITS = 2048
_HASHES: dict[Alg, hashes.HashAlgorithm] = {
    Alg.SHA1: hashes.SHA1(),  # noqa: S303 - refused below unless the caller gives a reason
    Alg.SHA256: hashes.SHA256(),
    Alg.SHA384: hashes.SHA384(),
    Alg.SHA512: hashes.SHA512(),
}
_CURVES: dict[Curve, ec.EllipticCurve] = {
    Curve.P256: ec.SECP256R1(),
    Curve.P384: ec.SECP384R1(),
    Curve.P521: ec.SECP521R1(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What an authentic quote says: `pcrs` are register values of `bank`; `ak_name` who said it.

    `ak_name` is empty where only the AK's key is known (`verify_by_key`).
    """

    attest: Attest
    bank: Alg
    pcrs: Mapping[int, bytes]
    ak_name: bytes


def verify(
    quote: bytes,
    *,
    signature: bytes,
    ak_public: Public,
    qualifying_data: bytes,
    bank: Alg,
    pcrs: Mapping[int, bytes],
    insecure_sha1_reason: str = "",
) -> Authentic[Quote]:
    """Verify a quote over exactly the registers `pcrs` of one bank.

    Args:
        quote: TPMS_ATTEST, the bytes that were signed.
        signature: TPMT_SIGNATURE.
        ak_public: the AK; who vouches for it is checked by the caller.
        qualifying_data: what the TPM was to include, all of it.
        bank: the bank that must have been quoted.
        pcrs: register number -> value, untrusted; becomes trusted by the quote.
        insecure_sha1_reason: why a SHA-1 bank or signature is acceptable here; empty: it is not.

    Raises:
        FormatError: a structure does not follow its specification.
        Untrusted: the first check that fails.
    """
    signed = parse_signature(signature)
    _check_ak(ak_public)
    _check_scheme(ak_public, signed)
    return _verify(
        quote,
        signed=signed,
        key=public_key(ak_public),
        ak_name=ak_public.name(),
        qualifying_data=qualifying_data,
        bank=bank,
        pcrs=pcrs,
        insecure_sha1_reason=insecure_sha1_reason,
    )


def verify_by_key(
    quote: bytes,
    *,
    signature: bytes,
    ak: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    qualifying_data: bytes,
    bank: Alg,
    pcrs: Mapping[int, bytes],
    insecure_sha1_reason: str = "",
) -> Authentic[Quote]:
    """Verify a quote by a key that somebody trusted calls an AK, without its public area.

    For a certificate, a document or a report that vouches for a key as a restricted AK (step 1 is
    then theirs). Else use `verify`; arguments and errors are the same.
    """
    if isinstance(ak, rsa.RSAPublicKey) and ak.key_size < _MIN_RSA_BITS:
        raise Untrusted(f"AK: RSA of {ak.key_size} bits, want {_MIN_RSA_BITS} or more")
    return _verify(
        quote,
        signed=parse_signature(signature),
        key=ak,
        ak_name=b"",
        qualifying_data=qualifying_data,
        bank=bank,
        pcrs=pcrs,
        insecure_sha1_reason=insecure_sha1_reason,
    )


def _verify(
    quote: bytes,
    *,
    signed: Signature,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    ak_name: bytes,
    qualifying_data: bytes,
    bank: Alg,
    pcrs: Mapping[int, bytes],
    insecure_sha1_reason: str,
) -> Authentic[Quote]:
    parsed = Attest.parse(quote)
    for used in (bank, signed.hash):
        if used is Alg.SHA1 and not insecure_sha1_reason:
            raise Untrusted("quote: SHA-1 is not accepted")
    _check_signature(key, signed, quote)
    if parsed.magic != GENERATED:
        raise Untrusted(f"quote: magic {parsed.magic:#010x}, want {GENERATED:#010x}")
    assert parsed.type == ST_ATTEST_QUOTE  # noqa: S101 - Attest.parse reads nothing else
    if not hmac.compare_digest(parsed.extra_data, qualifying_data):
        raise Untrusted(
            f"quote: extraData {parsed.extra_data.hex()}, expected {qualifying_data.hex()}"
        )
    _check_registers(parsed, signed.hash, bank, pcrs)
    ordered = {number: pcrs[number] for number in sorted(pcrs)}
    return Authentic(Quote(attest=parsed, bank=bank, pcrs=ordered, ak_name=ak_name))


def public_key(public: Public) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Give the key of a public area.

    Raises:
        FormatError: the numbers are not a key of their kind.
    """
    try:
        if isinstance(public.key, RsaKey):
            number = int.from_bytes(public.key.modulus, "big")
            return rsa.RSAPublicNumbers(public.key.exponent or 65537, number).public_key()
        x, y = (int.from_bytes(part, "big") for part in (public.key.x, public.key.y))
        return ec.EllipticCurvePublicNumbers(x, y, _CURVES[public.key.curve]).public_key()
    except ValueError as error:
        raise FormatError(f"TPMT_PUBLIC: not a key: {error}") from None


def _check_ak(public: Public) -> None:
    if missing := AK_ATTRIBUTES & ~public.object_attributes:
        raise Untrusted(f"AK: attributes {missing!r} are missing: it may sign what no TPM made")
    if Attribute.DECRYPT in public.object_attributes:
        raise Untrusted("AK: it may decrypt; want a key that only signs")
    if isinstance(public.key, RsaKey):
        bits = int.from_bytes(public.key.modulus, "big").bit_length()
        if bits < _MIN_RSA_BITS or bits != public.key.key_bits:
            raise Untrusted(f"AK: RSA of {bits} bits, want {_MIN_RSA_BITS} or more")


def _check_scheme(public: Public, signature: Signature) -> None:
    used = _scheme(signature)
    # Part 2, section 12.2.3.4: the scheme in the public area, unless it is NULL, is the only one
    only, done = public.scheme, (used, signature.hash)
    if only.scheme is not Alg.NULL and (only.scheme, only.hash) != done:
        allowed = " with ".join(a.name for a in (only.scheme, only.hash) if a is not None)
        raise Untrusted(f"quote: {used.name} with {signature.hash.name}, the AK allows {allowed}")


def _scheme(signature: Signature) -> Alg:
    return Alg.ECDSA if isinstance(signature, EcdsaSignature) else signature.scheme


def _check_signature(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, signature: Signature, message: bytes
) -> None:
    algorithm = _HASHES.get(signature.hash)
    if algorithm is None:
        raise Untrusted(f"quote: signature's hash {signature.hash.name} is not accepted")
    try:
        match signature, key:
            case EcdsaSignature(), ec.EllipticCurvePublicKey():
                r, s = (
                    int.from_bytes(n, "big") for n in (signature.signature_r, signature.signature_s)
                )
                key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
            case RsaSignature(scheme=Alg.RSASSA), rsa.RSAPublicKey():
                key.verify(signature.sig, message, padding.PKCS1v15(), algorithm)
            case RsaSignature(), rsa.RSAPublicKey():
                # Part 1, annex B.7: the salt is as long as the key allows, or as the digest
                pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
                key.verify(signature.sig, message, pss, algorithm)
            case _:
                kind = _scheme(signature).name
                raise Untrusted(f"quote: {kind} signature, but the AK is of another kind")
    except InvalidSignature:
        raise Untrusted("quote: the AK did not make this signature") from None


def _check_registers(attest: Attest, hash_alg: Alg, bank: Alg, pcrs: Mapping[int, bytes]) -> None:
    selected = [s for s in attest.pcr_select if s.pcrs]
    if len(selected) != 1 or selected[0].bank is not bank:
        banks = ", ".join(s.bank.name for s in selected) or "none"
        raise Untrusted(f"quote: banks {banks}, expected {bank.name} alone")
    if set(selected[0].pcrs) != set(pcrs):
        raise Untrusted(
            f"quote: registers {_list(selected[0].pcrs)}, values given for {_list(tuple(pcrs))}"
        )
    size = pcr.digest_size(bank)
    for number, value in pcrs.items():
        if len(value) != size:
            raise Untrusted(f"quote: PCR {number} has {len(value)} bytes, want {size}")
    digest = pcr.quote_digest(hash_alg, pcrs)
    if not hmac.compare_digest(digest, attest.pcr_digest):
        raise Untrusted(
            f"quote: pcrDigest {attest.pcr_digest.hex()}, the given values have {digest.hex()}"
        )


def _list(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, sorted(numbers))) or "none"
