"""The public area of a TPM's key: what it may do, its algorithm, the key itself, its Name.

Source: TCG TPM 2.0 Library, Part 2 "Structures", revision 1.59: section 8.3 (TPMA_OBJECT), 11.1
and 11.2 (schemes), 12.2 (TPMT_PUBLIC). Big-endian. A public area is a claim of whoever sent it,
until a certificate or a quote's qualifiedSigner binds its Name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Self

from constellation.attestation.tpm.structures import (
    Alg,
    read_alg,
    read_hash_alg,
    refuse_tpm_1_2,
)
from constellation.base.binary import Reader, Writer
from constellation.base.errors import FormatError

__all__ = ["Attribute", "Curve", "EccKey", "Public", "RsaKey", "Scheme", "Symmetric"]

_MAX_DIGEST_BYTES = 64
_MAX_RSA_BYTES = 512  # RSA-4096
_MAX_ECC_BYTES = 66  # P-521


class Curve(IntEnum):
    """TPM_ECC_CURVE (section 6.4), the NIST curves."""

    P256 = 0x0003
    P384 = 0x0004
    P521 = 0x0005


class Attribute(IntFlag):
    """TPMA_OBJECT (section 8.3)."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN_ENCRYPT = 1 << 18
    X509_SIGN = 1 << 19


_ALL_ATTRIBUTES = sum(Attribute)
_HASH_NAMES = {Alg.SHA1: "sha1", Alg.SHA256: "sha256", Alg.SHA384: "sha384", Alg.SHA512: "sha512"}
_HASHED_SCHEMES = (
    *(Alg.RSASSA, Alg.RSAPSS, Alg.OAEP, Alg.ECDSA, Alg.ECDH, Alg.ECDAA),
    *(Alg.KDF1_SP800_56A, Alg.KDF1_SP800_108),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT other than NULL (section 11.1.7)."""

    algorithm: Alg
    key_bits: int
    mode: Alg


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """TPMT_RSA_SCHEME, TPMT_ECC_SCHEME or TPMT_KDF_SCHEME (section 11.2).

    `hash` is None where the scheme has no details; `count` belongs to ECDAA only.
    """

    scheme: Alg
    hash: Alg | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """TPMS_RSA_PARMS' own fields and the modulus; `exponent` 0 means 65537 (section 12.2.3.5)."""

    key_bits: int
    exponent: int
    modulus: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EccKey:
    """TPMS_ECC_PARMS' own fields and the point (section 12.2.3.6)."""

    curve: Curve
    kdf: Scheme
    x: bytes
    y: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """TPMT_PUBLIC of an RSA or ECC key (section 12.2.4). `symmetric` is None for TPM_ALG_NULL."""

    name_alg: Alg
    object_attributes: Attribute
    auth_policy: bytes
    symmetric: Symmetric | None
    scheme: Scheme
    key: RsaKey | EccKey

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a public area (without the size that TPM2B_PUBLIC puts before it).

        Raises:
            FormatError: another kind of object or layout, reserved attributes, bytes left over.
        """
        refuse_tpm_1_2(data, what="TPMT_PUBLIC")
        read = Reader(data, what="TPMT_PUBLIC", order="big")
        kind, name_alg = read_alg(read, "type"), read_hash_alg(read, "nameAlg")
        if kind not in (Alg.RSA, Alg.ECC):
            raise FormatError(f"TPMT_PUBLIC: type {kind.name}, want RSA or ECC")
        attributes = read.number(4, "objectAttributes")
        if attributes & ~_ALL_ATTRIBUTES:
            raise FormatError(f"TPMT_PUBLIC: reserved attributes in {attributes:#010x}")
        policy = read.sized(2, "authPolicy", maximum=_MAX_DIGEST_BYTES)
        symmetric, scheme = _symmetric(read), _scheme(read, "scheme")
        key: RsaKey | EccKey
        if kind is Alg.RSA:
            key = RsaKey(
                key_bits=read.number(2, "keyBits"),
                exponent=read.number(4, "exponent"),
                modulus=read.sized(2, "unique", maximum=_MAX_RSA_BYTES),
            )
        else:
            key = EccKey(
                curve=_curve(read),
                kdf=_scheme(read, "kdf"),
                x=read.sized(2, "unique.x", maximum=_MAX_ECC_BYTES),
                y=read.sized(2, "unique.y", maximum=_MAX_ECC_BYTES),
            )
        read.end()
        return cls(
            name_alg=name_alg,
            object_attributes=Attribute(attributes),
            auth_policy=policy,
            symmetric=symmetric,
            scheme=scheme,
            key=key,
        )

    def pack(self) -> bytes:
        """Write the structure; the exact inverse of `parse`."""
        out = Writer(order="big")
        out.number(Alg.RSA if isinstance(self.key, RsaKey) else Alg.ECC, 2)
        out.number(self.name_alg, 2).number(self.object_attributes, 4).sized(self.auth_policy, 2)
        if self.symmetric is None:
            out.number(Alg.NULL, 2)
        else:
            out.number(self.symmetric.algorithm, 2).number(self.symmetric.key_bits, 2)
            out.number(self.symmetric.mode, 2)
        out.raw(_pack_scheme(self.scheme))
        if isinstance(self.key, RsaKey):
            out.number(self.key.key_bits, 2).number(self.key.exponent, 4)
            return out.sized(self.key.modulus, 2).done()
        out.number(self.key.curve, 2).raw(_pack_scheme(self.key.kdf))
        return out.sized(self.key.x, 2).sized(self.key.y, 2).done()

    def name(self) -> bytes:
        """Give the object's Name: nameAlg, then its hash of the public area (Part 1, section 16).

        Raises:
            FormatError: nameAlg is a hash that we do not compute (SM3, SHA-3).
        """
        algorithm = _HASH_NAMES.get(self.name_alg)
        if algorithm is None:
            raise FormatError(f"TPMT_PUBLIC: nameAlg {self.name_alg.name} is not supported")
        return self.name_alg.to_bytes(2, "big") + hashlib.new(algorithm, self.pack()).digest()


def _curve(read: Reader) -> Curve:
    number = read.number(2, "curveID")
    try:
        return Curve(number)
    except ValueError:
        raise FormatError(f"{read.what}: unknown curve {number:#06x}") from None


def _symmetric(read: Reader) -> Symmetric | None:
    algorithm = read_alg(read, "symmetric")
    if algorithm is Alg.NULL:
        return None
    if algorithm is not Alg.AES:
        raise FormatError(f"{read.what}: symmetric {algorithm.name}, want AES or NULL")
    bits, mode = read.number(2, "symmetric.keyBits"), read_alg(read, "symmetric.mode")
    return Symmetric(algorithm=algorithm, key_bits=bits, mode=mode)


def _scheme(read: Reader, field: str) -> Scheme:
    scheme = read_alg(read, field)
    if scheme in (Alg.NULL, Alg.RSAES):
        return Scheme(scheme=scheme)
    if scheme not in _HASHED_SCHEMES:
        raise FormatError(f"{read.what}: {field}: {scheme.name} is not a scheme")
    digest = read_hash_alg(read, f"{field}.hashAlg")
    count = read.number(2, f"{field}.count") if scheme is Alg.ECDAA else None
    return Scheme(scheme=scheme, hash=digest, count=count)


def _pack_scheme(scheme: Scheme) -> bytes:
    out = Writer(order="big").number(scheme.scheme, 2)
    if scheme.hash is not None:
        out.number(scheme.hash, 2)
    if scheme.count is not None:
        out.number(scheme.count, 2)
    return out.done()
