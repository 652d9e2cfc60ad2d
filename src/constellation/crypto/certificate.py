"""What a certificate or a revocation list of a chip's vendor says, read by hand from its DER.

Nothing is verified here: `tbs` is what the signature covers, and who may sign it is the caller's
matter. Unlike an X.509 library it accepts a serial number 0, and it keeps extensions as bytes.
Source: RFC 5280, sections 4.1, 4.2 and 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from constellation.base.errors import FormatError, Untrusted
from constellation.crypto.der import (
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    DerReader,
    context,
    from_pem_or_der,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["BASIC_CONSTRAINTS", "KEY_USAGE", "Certificate", "Extension", "RevocationList"]

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"

_V3 = 2
_V2_LIST = 1
_COMMON_NAME = "2.5.4.3"
_MAX_BYTES = 16 * 1024
_MAX_LIST_BYTES = 1024 * 1024
_KEY_CERT_SIGN = 0x04  # bit 5 of KeyUsage, counted from the most significant


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One extension: whether a reader must know it, and the content of its OCTET STRING."""

    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An X.509 v3 certificate; untrusted. Names, key and algorithm are their DER."""

    der: bytes
    tbs: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    spki: bytes
    extensions: Mapping[str, Extension]
    signature_algorithm: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes, *, what: str) -> Self:
        """Read one certificate, DER or PEM.

        Raises:
            FormatError: not a v3 certificate, or bytes left over.
        """
        der = from_pem_or_der(data, label="CERTIFICATE", what=what)
        outer = _whole(der, what, _MAX_BYTES)
        mark = outer.offset
        body = outer.enter(SEQUENCE, "tbsCertificate")
        tbs = der[mark : outer.offset]
        version = body.enter(context(0), "version")
        if (number := version.integer("version")) != _V3:
            raise FormatError(f"{what}: version {number + 1}, want 3")
        version.end()
        serial = body.integer("serialNumber")
        inner_algorithm = body.raw(SEQUENCE, "signature")
        issuer = body.raw(SEQUENCE, "issuer")
        validity = body.enter(SEQUENCE, "validity")
        not_before, not_after = validity.time("notBefore"), validity.time("notAfter")
        validity.end()
        subject = body.raw(SEQUENCE, "subject")
        spki = body.raw(SEQUENCE, "subjectPublicKeyInfo")
        extensions = _extensions(body, 3)
        body.end()
        algorithm = outer.raw(SEQUENCE, "signatureAlgorithm")
        if algorithm != inner_algorithm:  # RFC 5280, section 4.1.1.2
            raise FormatError(f"{what}: two different signature algorithms")
        signature = outer.bits("signatureValue")
        outer.end()
        return cls(
            der=der, tbs=tbs, serial=serial, issuer=issuer, subject=subject,
            not_before=not_before, not_after=not_after, spki=spki, extensions=extensions,
            signature_algorithm=algorithm, signature=signature,
        )  # fmt: skip

    def common_name(self) -> str:
        """Give the subject's only common name.

        Raises:
            FormatError: none or several, or not text.
        """
        return _common_name(self.subject)

    def issuer_name(self) -> str:
        """Give the issuer's only common name; see `common_name`."""
        return _common_name(self.issuer)

    def check_validity(self, what: str, *, now: datetime) -> None:
        """Check RFC 5280, section 4.1.2.5.

        Raises:
            Untrusted: not yet or no longer valid.
        """
        if now < self.not_before:
            raise Untrusted(f"{what}: not yet valid: from {self.not_before}, now is {now}")
        if now > self.not_after:
            raise Untrusted(f"{what}: expired {self.not_after}, now is {now}")

    def check_authority(self, what: str) -> None:
        """Check that this certificate may sign others (RFC 5280, sections 4.2.1.3 and 4.2.1.9).

        Raises:
            FormatError: an extension cannot be read.
            Untrusted: not an authority.
        """
        basic = self.extensions.get(BASIC_CONSTRAINTS)
        usage = self.extensions.get(KEY_USAGE)
        if basic is None or usage is None:
            raise Untrusted(f"{what}: basicConstraints or keyUsage is missing: not an authority")
        read = DerReader(basic.value, what=f"{what}: basicConstraints").enter(SEQUENCE, "sequence")
        if not read.remaining or not read.boolean("cA"):
            raise Untrusted(f"{what}: basicConstraints says CA:FALSE")
        # unused bits are allowed here (X.690, section 11.2.2), so the bits are read as they are
        bits = DerReader(usage.value, what=f"{what}: keyUsage").value(0x03, "bits")
        if len(bits) < 2 or not bits[1] & _KEY_CERT_SIGN:  # noqa: PLR2004 - count and first byte
            raise Untrusted(f"{what}: keyUsage does not allow signing certificates")

    def check_critical(self, what: str, *, known: frozenset[str]) -> None:
        """Check that every critical extension is one of `known` (RFC 5280, section 4.2).

        Raises:
            Untrusted: it has one that is not.
        """
        for oid, extension in self.extensions.items():
            if extension.critical and oid not in known:
                raise Untrusted(f"{what}: unknown critical extension {oid}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A complete CRL of one issuer; untrusted. `next_update` is when the next one is due."""

    tbs: bytes
    issuer: bytes
    this_update: datetime
    next_update: datetime
    revoked: frozenset[int]
    signature_algorithm: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes, *, what: str) -> Self:
        """Read one CRL, DER or PEM.

        Raises:
            FormatError: not a v2 list with nextUpdate, or one that is incomplete or of several
                issuers (a critical extension that is not known), or bytes left over.
        """
        der = from_pem_or_der(data, label="X509 CRL", what=what)
        outer = _whole(der, what, _MAX_LIST_BYTES)
        mark = outer.offset
        body = outer.enter(SEQUENCE, "tbsCertList")
        tbs = der[mark : outer.offset]
        if not body.at(INTEGER) or body.integer("version") != _V2_LIST:
            raise FormatError(f"{what}: want version 2")
        inner_algorithm = body.raw(SEQUENCE, "signature")
        issuer = body.raw(SEQUENCE, "issuer")
        this_update, next_update = body.time("thisUpdate"), body.time("nextUpdate")
        revoked = set()
        if body.at(SEQUENCE):
            entries = body.enter(SEQUENCE, "revokedCertificates")
            while entries.remaining:
                revoked.add(_revoked(entries, what))
        _refuse_critical(_extensions(body, 0), what)
        body.end()
        algorithm = outer.raw(SEQUENCE, "signatureAlgorithm")
        if algorithm != inner_algorithm:  # RFC 5280, section 5.1.1.2
            raise FormatError(f"{what}: two different signature algorithms")
        signature = outer.bits("signatureValue")
        outer.end()
        return cls(
            tbs=tbs, issuer=issuer, this_update=this_update, next_update=next_update,
            revoked=frozenset(revoked), signature_algorithm=algorithm, signature=signature,
        )  # fmt: skip


def _whole(der: bytes, what: str, maximum: int) -> DerReader:
    if len(der) > maximum:
        raise FormatError(f"{what}: {len(der)} bytes, at most {maximum} are read")
    reader = DerReader(der, what=what)
    outer = reader.enter(SEQUENCE, "outer sequence")
    reader.end()
    return outer


def _revoked(entries: DerReader, what: str) -> int:
    entry = entries.enter(SEQUENCE, "revoked certificate")
    serial = entry.integer("userCertificate")
    entry.time("revocationDate")
    if entry.remaining:
        extensions = entry.enter(SEQUENCE, "crlEntryExtensions")
        while extensions.remaining:
            extension = extensions.enter(SEQUENCE, "crlEntryExtension")
            oid = extension.oid("extnID")
            # certificateIssuer (RFC 5280, section 5.3.3) would make the entry another issuer's
            if extension.at(0x01) and extension.boolean("critical"):
                raise FormatError(f"{what}: unknown critical entry extension {oid}")
            extension.value(OCTET_STRING, "extnValue")
            extension.end()
    entry.end()
    return serial


def _refuse_critical(extensions: Mapping[str, Extension], what: str) -> None:
    for oid, extension in extensions.items():
        if extension.critical:
            raise FormatError(f"{what}: unknown critical extension {oid}: it may be incomplete")


def _extensions(body: DerReader, number: int) -> dict[str, Extension]:
    found: dict[str, Extension] = {}
    if not body.at(context(number)):
        return found
    wrapped = body.enter(context(number), "extensions")
    listed = wrapped.enter(SEQUENCE, "extensions")
    wrapped.end()
    while listed.remaining:
        extension = listed.enter(SEQUENCE, "extension")
        oid = extension.oid("extnID")
        critical = extension.boolean("critical") if extension.at(0x01) else False
        value = extension.value(OCTET_STRING, "extnValue")
        extension.end()
        if oid in found:  # RFC 5280, section 4.2
            raise FormatError(f"{body.what}: extension {oid} occurs twice")
        found[oid] = Extension(critical=critical, value=value)
    return found


def _common_name(name: bytes) -> str:
    found = []
    parts = DerReader(name, what="name").enter(SEQUENCE, "name")
    while parts.remaining:
        group = parts.enter(SET, "relative name")
        while group.remaining:
            pair = group.enter(SEQUENCE, "attribute")
            if pair.oid("type") == _COMMON_NAME:
                found.append(_text(pair))
            else:
                pair.skip("value")
            pair.end()
    if len(found) != 1:
        raise FormatError(f"name: {len(found)} common names, want 1")
    return found[0]


def _text(pair: DerReader) -> str:
    for tag in (0x0C, 0x13, 0x16):  # UTF8String, PrintableString, IA5String
        if pair.at(tag):
            raw = pair.value(tag, "common name")
            try:
                return raw.decode()
            except UnicodeDecodeError:
                break
    raise FormatError("name: the common name is not text")
