"""What a PCK certificate says of its platform, and how Intel's chains are written down.

The SGX extension (OID 1.2.840.113741.1.13.1) carries PPID, TCB, PCE-ID, FMSPC and, for platforms
with several packages, their configuration. Source: "Intel SGX PCK Certificate and Certificate
Revocation List Profile Specification", revision 1.5, section 1.3.5; ITU-T X.690 for the encoding.
Reading a certificate establishes nothing: see `chain`.
"""

from __future__ import annotations

import base64
import functools
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from constellation.base.errors import FormatError

__all__ = ["PckExtension", "load_certificate", "parse_extension", "split_pem"]

_SGX = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_MAX_CERTIFICATE_BYTES = 8192
_MAX_CHAIN = 4
_COMPONENTS = 16
_NOT_A_CERTIFICATE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    UnsupportedAlgorithm,
    Warning,  # where warnings are errors: odd serial numbers and names
)
_ARMOUR = re.compile(
    rb"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----(?:\n|\Z)"
)
_LINE = 64

# X.690, section 8; identifier octets
_BOOLEAN, _INTEGER, _OCTETS, _OID, _ENUMERATED, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30


@dataclass(frozen=True, slots=True, kw_only=True)
class PckExtension:
    """The SGX extension of a PCK certificate.

    `ppid` 16 bytes, `cpu_svn` 16 bytes, `components` the 16 SVNs that it stands for, `pce_id` 2
    bytes, `fmspc` 6 bytes, `sgx_type` 0 standard, 1 scalable, 2 scalable with integrity. The last
    four are None in certificates of the Processor CA.
    """

    ppid: bytes
    components: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None = None
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None


def split_pem(data: bytes, *, what: str) -> tuple[bytes, ...]:
    """Give the certificates (DER) of a PEM chain, in their order.

    Only one spelling is read: lines of 64 characters, nothing between, a line end and a zero byte
    at most after the last; so that no byte of a chain can change unnoticed.

    Raises:
        FormatError: another spelling, no certificate, or more than a chain has.
    """
    text, offset = data.removesuffix(b"\0"), 0
    found: list[bytes] = []
    while offset < len(text):
        match = _ARMOUR.match(text, offset)
        if match is None or len(found) == _MAX_CHAIN:
            raise FormatError(f"{what}: no PEM certificate at {offset:#x}, or too many")
        offset = match.end()
        found.append(_unarmour(match[1], what))
    if not found:
        raise FormatError(f"{what}: no certificate")
    return tuple(found)


def load_certificate(der: bytes, *, what: str) -> x509.Certificate:
    """Read one certificate, DER, nothing after it.

    Raises:
        FormatError: not a certificate, too long, or bytes outside its signature that carry nothing.
    """
    try:
        return _load(der)
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None


@functools.lru_cache(maxsize=256)
def parse_extension(certificate: x509.Certificate) -> PckExtension:
    """Read the SGX extension of a PCK certificate.

    Raises:
        FormatError: it is missing, or not the layout of the profile.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(_SGX).value
    except x509.ExtensionNotFound:
        raise FormatError("PCK certificate: the SGX extension is missing") from None
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise FormatError("PCK certificate: the SGX extension cannot be read")
    found = _pairs(_whole(extension.value, _SEQUENCE, "SGX extension"), "SGX extension")
    tcb = _pairs(_value(found, "2", _SEQUENCE), "TCB")
    settings = _pairs(_value(found, "7", _SEQUENCE), "configuration") if "7" in found else {}
    components = tuple(_number(tcb, f"2.{i}", _INTEGER) for i in range(1, _COMPONENTS + 1))
    if max(components) > 0xFF:  # noqa: PLR2004 - a byte
        raise FormatError("PCK certificate: a component SVN of more than a byte")
    return PckExtension(
        ppid=_bytes(found, "1", 16),
        components=components,
        pce_svn=_number(tcb, "2.17", _INTEGER),
        cpu_svn=_bytes(tcb, "2.18", 16),
        pce_id=_bytes(found, "3", 2),
        fmspc=_bytes(found, "4", 6),
        sgx_type=_number(found, "5", _ENUMERATED),
        platform_instance_id=_bytes(found, "6", 16) if "6" in found else None,
        dynamic_platform=_flag(settings, "7.1"),
        cached_keys=_flag(settings, "7.2"),
        smt_enabled=_flag(settings, "7.3"),
    )


@functools.lru_cache(maxsize=256)
def _load(der: bytes) -> x509.Certificate:
    if len(der) > _MAX_CERTIFICATE_BYTES:
        raise FormatError(f"{len(der)} bytes, at most {_MAX_CERTIFICATE_BYTES} are read")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # what is read later cannot be read wrong then
        _ = certificate.extensions, certificate.subject, certificate.issuer
        _ = certificate.public_key(), certificate.signature_hash_algorithm
    except (*_NOT_A_CERTIFICATE, x509.DuplicateExtension) as error:
        raise FormatError(f"not a certificate: {error}") from None
    if certificate.serial_number <= 0:  # RFC 5280, section 4.1.2.2
        raise FormatError("its serial number is not positive")
    if not der.endswith(b"\0" + certificate.signature):
        # X.690, section 8.6.2: no unused bits; all else is inside the signature
        raise FormatError("its signature is not whole bytes")
    return certificate


def _unarmour(body: bytes, what: str) -> bytes:
    # no bound by the regular expression: the whole quote is bounded
    joined = body.replace(b"\n", b"")
    try:
        der = base64.b64decode(joined, validate=True)
    except ValueError:
        raise FormatError(f"{what}: not base64") from None
    lines = b"".join(joined[i : i + _LINE] + b"\n" for i in range(0, len(joined), _LINE))
    if base64.b64encode(der) != joined or lines != body:
        raise FormatError(f"{what}: not the usual PEM: lines of {_LINE}, no unused bits")
    return der


Pairs = dict[str, tuple[int, bytes]]


def _pairs(data: bytes, what: str) -> Pairs:
    """Read SEQUENCE { OID, value } repeated; keys are what the OID has after the SGX one's."""
    found: Pairs = {}
    while data:
        tag, pair, data = _element(data, what)
        if tag != _SEQUENCE:
            raise FormatError(f"PCK certificate: {what} holds tag {tag:#04x}, want a sequence")
        tag, oid, rest = _element(pair, what)
        key = _suffix(oid)
        tag_of_value, value, rest = _element(rest, what)
        if tag != _OID or rest or key in found:
            raise FormatError(f"PCK certificate: {what}: {key} twice, or not an OID and a value")
        found[key] = (tag_of_value, value)
    return found


_PREFIX = bytes.fromhex("2a864886f84d010d01")


def _suffix(oid: bytes) -> str:
    # every arc below ours is less than 128: one byte
    rest = oid.removeprefix(_PREFIX)
    if not oid.startswith(_PREFIX) or not rest or max(rest) > 0x7F:  # noqa: PLR2004 - as above
        raise FormatError(f"PCK certificate: unknown OID {oid[:16].hex()} in the SGX extension")
    return ".".join(map(str, rest))


def _element(data: bytes, what: str) -> tuple[int, bytes, bytes]:
    """Read one DER element: tag, value, and what follows it."""
    if len(data) < 2 or data[0] & 0x1F == 0x1F:  # noqa: PLR2004 - tag and length; no long tags
        raise FormatError(f"PCK certificate: {what} ends too early")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        length = data[2:start]
        size = int.from_bytes(length, "big")
        if not 0 < len(length) <= 2 or size < 0x80 or length[0] == 0:  # noqa: PLR2004 - 64 KiB
            raise FormatError(f"PCK certificate: {what}: a length that is not DER")
    if len(data) < start + size:
        raise FormatError(f"PCK certificate: {what} ends too early")
    return data[0], data[start : start + size], data[start + size :]


def _whole(data: bytes, want: int, what: str) -> bytes:
    tag, value, rest = _element(data, what)
    if tag != want or rest:
        raise FormatError(f"PCK certificate: {what}: tag {tag:#04x}, want {want:#04x} alone")
    return value


def _value(pairs: Pairs, key: str, want: int) -> bytes:
    tag, value = pairs.get(key, (0, b""))
    if tag != want:
        raise FormatError(f"PCK certificate: SGX extension {key}: tag {tag:#04x}, want {want:#04x}")
    return value


def _bytes(pairs: Pairs, key: str, size: int) -> bytes:
    value = _value(pairs, key, _OCTETS)
    if len(value) != size:
        raise FormatError(f"PCK certificate: SGX extension {key}: {len(value)} bytes, want {size}")
    return value


def _number(pairs: Pairs, key: str, tag: int) -> int:
    value = _value(pairs, key, tag)
    if not 0 < len(value) <= 4 or value[0] & 0x80:  # noqa: PLR2004 - PCESVN has two bytes
        raise FormatError(f"PCK certificate: SGX extension {key}: not a small number")
    return int.from_bytes(value, "big")


def _flag(pairs: Pairs, key: str) -> bool | None:
    if key not in pairs:
        return None
    value = _value(pairs, key, _BOOLEAN)
    if value not in (b"\0", b"\xff"):
        raise FormatError(f"PCK certificate: SGX extension {key}: not a boolean")
    return value == b"\xff"
