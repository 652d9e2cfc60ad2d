"""The TPM structures that evidence is made of: quote, signature, PCR selection.

Source: TCG TPM 2.0 Library, Part 2 "Structures", revision 1.59; each type names its structure
there. Numbers are big-endian (Part 1, section 4.1.1). Parsing establishes layout only: what comes
out is untrusted until `quote.verify` has seen it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from constellation.base.binary import Reader, Writer
from constellation.base.errors import FormatError

__all__ = [
    "GENERATED",
    "ST_ATTEST_QUOTE",
    "Alg",
    "Attest",
    "ClockInfo",
    "EcdsaSignature",
    "PcrSelection",
    "RsaSignature",
    "Signature",
    "pack_selections",
    "parse_selections",
    "parse_signature",
    "read_alg",
    "read_hash_alg",
    "refuse_tpm_1_2",
]

GENERATED = 0xFF544347
"""TPM_GENERATED_VALUE: the TPM signs nothing from outside that begins with it (section 6.2)."""

ST_ATTEST_QUOTE = 0x8018
"""TPM_ST_ATTEST_QUOTE (section 6.9)."""

_MAX_NAME_BYTES = 2 + 64  # TPMU_NAME with SHA-512
_MAX_DATA_BYTES = 2 + 64  # TPM2B_DATA: at most a TPMT_HA
_MAX_DIGEST_BYTES = 64
_MAX_RSA_BYTES = 512  # RSA-4096
_MAX_ECC_BYTES = 66  # P-521
_MAX_SELECTIONS = 8  # banks of one selection; implementations have up to 5
_MAX_SELECT_BYTES = 4


class Alg(IntEnum):
    """TPM_ALG_ID (section 6.3); source of the numbers: TCG Algorithm Registry."""

    RSA = 0x0001
    SHA1 = 0x0004
    HMAC = 0x0005
    AES = 0x0006
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    SM3_256 = 0x0012
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    ECDAA = 0x001A
    KDF1_SP800_56A = 0x0020
    KDF1_SP800_108 = 0x0022
    ECC = 0x0023
    SHA3_256 = 0x0027
    SHA3_384 = 0x0028
    SHA3_512 = 0x0029
    CTR = 0x0040
    OFB = 0x0041
    CBC = 0x0042
    CFB = 0x0043
    ECB = 0x0044


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrSelection:
    """TPMS_PCR_SELECTION (section 10.6): registers of one bank, ascending.

    `size_bytes` is the length of the bit map, 3 on PC platforms.
    """

    bank: Alg
    pcrs: tuple[int, ...]
    size_bytes: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (section 10.11.1): milliseconds powered, resets, restarts, whether safe."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """TPMS_ATTEST whose body is TPMS_QUOTE_INFO (section 10.12): what a quote's signature covers.

    `extra_data` is the caller's qualifying data; `pcr_digest` is over the selected registers, by
    the hash of the signing scheme.
    """

    magic: int
    type: int
    qualified_signer: bytes
    extra_data: bytes
    clock_info: ClockInfo
    firmware_version: int
    pcr_select: tuple[PcrSelection, ...]
    pcr_digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a quote.

        Raises:
            FormatError: not the layout of a quote (another type included), or bytes left over.
        """
        refuse_tpm_1_2(data, what="TPMS_ATTEST")
        read = Reader(data, what="TPMS_ATTEST", order="big")
        magic, kind = read.number(4, "magic"), read.number(2, "type")
        if kind != ST_ATTEST_QUOTE:
            raise FormatError(f"TPMS_ATTEST: type {kind:#06x}, want a quote ({ST_ATTEST_QUOTE:#x})")
        signer = read.sized(2, "qualifiedSigner", maximum=_MAX_NAME_BYTES)
        extra = read.sized(2, "extraData", maximum=_MAX_DATA_BYTES)
        clock = ClockInfo(
            clock=read.number(8, "clock"),
            reset_count=read.number(4, "resetCount"),
            restart_count=read.number(4, "restartCount"),
            safe=_yes_no(read, "safe"),
        )
        quote = cls(
            magic=magic,
            type=kind,
            qualified_signer=signer,
            extra_data=extra,
            clock_info=clock,
            firmware_version=read.number(8, "firmwareVersion"),
            pcr_select=parse_selections(read),
            pcr_digest=read.sized(2, "pcrDigest", maximum=_MAX_DIGEST_BYTES),
        )
        read.end()
        return quote

    def pack(self) -> bytes:
        """Write the structure; the exact inverse of `parse`."""
        out = Writer(order="big").number(self.magic, 4).number(self.type, 2)
        out.sized(self.qualified_signer, 2).sized(self.extra_data, 2)
        out.number(self.clock_info.clock, 8).number(self.clock_info.reset_count, 4)
        out.number(self.clock_info.restart_count, 4).number(int(self.clock_info.safe), 1)
        out.number(self.firmware_version, 8).raw(pack_selections(self.pcr_select))
        return out.sized(self.pcr_digest, 2).done()


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaSignature:
    """TPMS_SIGNATURE_RSASSA or _RSAPSS (section 11.3.1)."""

    scheme: Alg
    hash: Alg
    sig: bytes

    def pack(self) -> bytes:
        """Write the TPMT_SIGNATURE."""
        out = Writer(order="big").number(self.scheme, 2).number(self.hash, 2)
        return out.sized(self.sig, 2).done()


@dataclass(frozen=True, slots=True, kw_only=True)
class EcdsaSignature:
    """TPMS_SIGNATURE_ECDSA (section 11.3.2): r and s, unsigned numbers."""

    hash: Alg
    signature_r: bytes
    signature_s: bytes

    def pack(self) -> bytes:
        """Write the TPMT_SIGNATURE."""
        out = Writer(order="big").number(Alg.ECDSA, 2).number(self.hash, 2)
        return out.sized(self.signature_r, 2).sized(self.signature_s, 2).done()


Signature = RsaSignature | EcdsaSignature
"""TPMT_SIGNATURE (section 11.3.4) of an asymmetric scheme that we verify."""


def parse_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE: RSASSA, RSAPSS or ECDSA.

    Raises:
        FormatError: another scheme or layout, or bytes left over.
    """
    read = Reader(data, what="TPMT_SIGNATURE", order="big")
    scheme, digest = read_alg(read, "sigAlg"), read_hash_alg(read, "hash")
    signature: Signature
    if scheme in (Alg.RSASSA, Alg.RSAPSS):
        sig = read.sized(2, "sig", maximum=_MAX_RSA_BYTES)
        signature = RsaSignature(scheme=scheme, hash=digest, sig=sig)
    elif scheme is Alg.ECDSA:
        r = read.sized(2, "signatureR", maximum=_MAX_ECC_BYTES)
        s = read.sized(2, "signatureS", maximum=_MAX_ECC_BYTES)
        signature = EcdsaSignature(hash=digest, signature_r=r, signature_s=s)
    else:
        raise FormatError(f"TPMT_SIGNATURE: sigAlg {scheme.name}, want RSASSA, RSAPSS or ECDSA")
    read.end()
    return signature


def refuse_tpm_1_2(data: bytes, *, what: str) -> None:
    """Refuse a quote or key of a TPM 1.2 by name: it knows SHA-1 only.

    Source: TCG TPM Main 1.2, Part 2, sections 10 (TPM_PUBKEY, TPM_KEY, TPM_KEY12) and 11
    (TPM_QUOTE_INFO, TPM_QUOTE_INFO2).

    Raises:
        FormatError: it begins as one of these does.
    """
    if data[4:8] == b"QUOT" or data[2:6] == b"QUT2" or data[:4] in _TPM_1_2_KEYS:
        raise FormatError(f"{what}: a structure of TPM 1.2, want TPM 2.0: SHA-1 proves nothing")


# algorithm RSA as four bytes (TPM_PUBKEY); version 1.1 (TPM_KEY); TPM_TAG_KEY12
_TPM_1_2_KEYS = (b"\0\0\0\1", b"\1\1\0\0", b"\0\x28\0\0")


def parse_selections(read: Reader) -> tuple[PcrSelection, ...]:
    """Read a TPML_PCR_SELECTION (section 10.9.7).

    Raises:
        FormatError: too many banks, a bit map of another size than 1 to 4 bytes.
    """
    count = read.number(4, "pcrSelect.count")
    if count > _MAX_SELECTIONS:
        raise FormatError(f"{read.what}: {count} PCR selections, at most {_MAX_SELECTIONS}")
    found = []
    for _ in range(count):
        bank = read_hash_alg(read, "pcrSelect.hash")
        bits = read.sized(1, "pcrSelect.pcrSelect", maximum=_MAX_SELECT_BYTES)
        chosen = tuple(i for i in range(8 * len(bits)) if bits[i // 8] >> (i % 8) & 1)
        found.append(PcrSelection(bank=bank, pcrs=chosen, size_bytes=len(bits)))
    return tuple(found)


def pack_selections(selections: tuple[PcrSelection, ...]) -> bytes:
    """Write a TPML_PCR_SELECTION."""
    out = Writer(order="big").number(len(selections), 4)
    for selection in selections:
        bits = bytearray(selection.size_bytes)
        for pcr in selection.pcrs:
            bits[pcr // 8] |= 1 << (pcr % 8)
        out.number(selection.bank, 2).sized(bytes(bits), 1)
    return out.done()


def read_alg(read: Reader, field: str) -> Alg:
    """Read a TPM_ALG_ID.

    Raises:
        FormatError: not one that we know.
    """
    number = read.number(2, field)
    try:
        return Alg(number)
    except ValueError:
        raise FormatError(f"{read.what}: {field}: unknown algorithm {number:#06x}") from None


def read_hash_alg(read: Reader, field: str) -> Alg:
    """Read a TPMI_ALG_HASH.

    Raises:
        FormatError: not a hash that we know.
    """
    algorithm = read_alg(read, field)
    if not algorithm.name.startswith(("SHA", "SM3")):
        raise FormatError(f"{read.what}: {field}: {algorithm.name} is not a hash")
    return algorithm


def _yes_no(read: Reader, field: str) -> bool:
    number = read.number(1, field)
    if number > 1:  # TPMI_YES_NO, section 9.2
        raise FormatError(f"{read.what}: {field} is {number}, want 0 or 1")
    return bool(number)
