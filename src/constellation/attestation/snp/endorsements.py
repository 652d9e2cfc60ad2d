"""What vouches for a report's key: its certificate, the intermediate, and a revocation list.

The certificate of a VCEK or VLEK says in extensions for which chip (or cloud) and for which
firmware the key was made. With an extended report the host may hand certificates over in a table.
Sources: AMD 57230, "VCEK Certificate and KDS Interface Specification", rev. 1.00, section 3.1,
Tables 8 and 9; AMD 58369 (VLEK); GHCB specification (AMD 56421), rev. 2.03, section 4.1.8.1.
Nothing here is trusted; `verify` decides.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation.snp.report import Product, SigningKey, Tcb
from constellation.base.binary import Reader, Writer
from constellation.base.errors import FormatError
from constellation.crypto.der import IA5_STRING, OCTET_STRING, DerReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.crypto.certificate import Certificate

__all__ = [
    "CertificateTable",
    "Endorsements",
    "VekFacts",
    "pack_certificate_table",
    "parse_certificate_table",
    "vek_facts",
]

_AMD = "1.3.6.1.4.1.3704.1"
_STRUCT_VERSION = f"{_AMD}.1"
_PRODUCT_NAME = f"{_AMD}.2"
_SPL = f"{_AMD}.3"
_BOOTLOADER, _TEE, _SNP, _MICROCODE, _FMC = (f"{_SPL}.{n}" for n in (1, 2, 3, 8, 9))
_RESERVED_SPLS = tuple(f"{_SPL}.{n}" for n in (4, 5, 6, 7))
_HWID = f"{_AMD}.4"
_CSP_ID = f"{_AMD}.5"
_MAX_SPL = 255
_HWID_SIZES = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: 8}

_ENTRY_BYTES = 24
_MAX_TABLE_BYTES = 256 * 1024
_MAX_ENTRIES = 64
_ROLES = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "vcek",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "vlek",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ask",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ark",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "crl",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What a verifier needs beyond a report and its roots; each DER or PEM, untrusted.

    `vek` is the VCEK's or VLEK's certificate; `intermediate` the ASK's or ASVK's, None: the one
    that AMD publishes now (`roots.amd`); `crl` the ARK's list, None: there is none, which `verify`
    records and a policy judges.
    """

    vek: bytes
    intermediate: bytes | None = None
    crl: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VekFacts:
    """What a VCEK's or VLEK's certificate says: which chip or cloud, which firmware.

    `hwid` is 64 bytes (8 for Turin), empty in a VLEK; `csp_id` names the cloud, empty in a VCEK.
    """

    kind: SigningKey
    product: Product
    product_name: str
    struct_version: int
    tcb: Tcb
    hwid: bytes
    csp_id: str


def vek_facts(certificate: Certificate) -> VekFacts:
    """Read AMD's extensions of a VCEK or VLEK certificate.

    Raises:
        FormatError: neither of the two, or an extension is missing or not what it should be.
    """
    name = certificate.common_name()
    kinds = {"SEV-VCEK": SigningKey.VCEK, "SEV-VLEK": SigningKey.VLEK}
    if name not in kinds:
        raise FormatError(f"VEK certificate: subject {name!r}, want SEV-VCEK or SEV-VLEK")
    kind = kinds[name]
    product_name = _text(certificate, _PRODUCT_NAME, "productName")
    product = _product(product_name)
    fmc = _FMC in certificate.extensions
    if fmc != (product is Product.TURIN):
        raise FormatError(f"{name} certificate: fmcSPL is there for Turin only, here {product}")
    for oid in _RESERVED_SPLS:
        if oid in certificate.extensions and _number(certificate, oid, "reserved SPL"):
            raise FormatError(f"{name} certificate: reserved SPL {oid} is not 0")
    return VekFacts(
        kind=kind,
        product=product,
        product_name=product_name,
        struct_version=_number(certificate, _STRUCT_VERSION, "structVersion"),
        tcb=Tcb(
            fmc=_number(certificate, _FMC, "fmcSPL") if fmc else 0,
            bootloader=_number(certificate, _BOOTLOADER, "blSPL"),
            tee=_number(certificate, _TEE, "teeSPL"),
            snp=_number(certificate, _SNP, "snpSPL"),
            microcode=_number(certificate, _MICROCODE, "ucodeSPL"),
        ),
        hwid=_hwid(certificate, product) if kind is SigningKey.VCEK else b"",
        csp_id=_text(certificate, _CSP_ID, "cspID") if kind is SigningKey.VLEK else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateTable:
    """What an extended report brings; None where the host gave nothing. DER or PEM, untrusted."""

    vcek: bytes | None = None
    vlek: bytes | None = None
    ask: bytes | None = None
    ark: bytes | None = None
    crl: bytes | None = None


def parse_certificate_table(data: bytes) -> CertificateTable:
    """Read the certificate table of an extended report; entries of unknown GUIDs are left out.

    Raises:
        FormatError: no terminator, an entry outside of the data, or one kind twice.
    """
    what = "certificate table"
    if len(data) > _MAX_TABLE_BYTES:
        raise FormatError(f"{what}: {len(data)} bytes, at most {_MAX_TABLE_BYTES} are read")
    read = Reader(data, what=what, order="little")
    found: dict[str, tuple[int, int]] = {}
    for _ in range(_MAX_ENTRIES):
        raw = read.take(16, "guid")
        offset, length = read.number(4, "offset"), read.number(4, "length")
        if not any(raw):
            break
        # hosts write the GUID in the order of its text or as UEFI does; nothing depends on it
        role = _ROLES.get(str(uuid.UUID(bytes=raw))) or _ROLES.get(str(uuid.UUID(bytes_le=raw)))
        if role in found:
            raise FormatError(f"{what}: {role} occurs twice")
        if role is not None:
            found[role] = offset, length
    else:
        raise FormatError(f"{what}: no terminator among {_MAX_ENTRIES} entries")
    for role, (offset, length) in found.items():
        if offset < read.offset or offset + length > len(data):
            raise FormatError(f"{what}: {role} at {offset:#x}, {length} bytes, is not inside")
    return CertificateTable(**{r: data[o : o + n] for r, (o, n) in found.items()})


def pack_certificate_table(entries: Mapping[str, bytes]) -> bytes:
    """Write a table of role (`vcek`, `vlek`, `ask`, `ark`, `crl`) -> bytes; twin of the parser."""
    guids = {role: guid for guid, role in _ROLES.items()}
    offset = _ENTRY_BYTES * (len(entries) + 1)
    head, body = Writer(order="little"), Writer(order="little")
    for role, content in entries.items():
        head.raw(uuid.UUID(guids[role]).bytes).number(offset, 4).number(len(content), 4)
        body.raw(content)
        offset += len(content)
    return head.raw(bytes(_ENTRY_BYTES)).raw(body.done()).done()


def _product(name: str) -> Product:
    # "Milan-B0" in VCEKs, "Milan" in VLEKs: the stepping is not part of the line
    line = name.partition("-")[0]
    try:
        return Product(line)
    except ValueError:
        raise FormatError(
            f"VEK certificate: productName {name[:40]!r} is no line we know"
        ) from None


def _extension(certificate: Certificate, oid: str, field: str) -> bytes:
    extension = certificate.extensions.get(oid)
    if extension is None:
        raise FormatError(f"VEK certificate: {field} ({oid}) is missing")
    return extension.value


def _number(certificate: Certificate, oid: str, field: str) -> int:
    read = DerReader(_extension(certificate, oid, field), what=f"VEK certificate: {field}")
    number = read.integer(field)
    read.end()
    if number > _MAX_SPL:
        raise FormatError(f"VEK certificate: {field} is {number}, want 0 to {_MAX_SPL}")
    return number


def _text(certificate: Certificate, oid: str, field: str) -> str:
    read = DerReader(_extension(certificate, oid, field), what=f"VEK certificate: {field}")
    raw = read.value(IA5_STRING, field)
    read.end()
    if not raw.isascii():
        raise FormatError(f"VEK certificate: {field} is not ASCII")
    return raw.decode("ascii")


def _hwid(certificate: Certificate, product: Product) -> bytes:
    value, size = _extension(certificate, _HWID, "hwID"), _HWID_SIZES[product]
    if len(value) != size:
        # the specification's figure shows an OCTET STRING; real certificates have the bytes
        read = DerReader(value, what="VEK certificate: hwID")
        value = read.value(OCTET_STRING, "hwID")
        read.end()
    if len(value) != size:
        raise FormatError(f"VEK certificate: hwID has {len(value)} bytes, want {size}")
    return value
