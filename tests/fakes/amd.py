"""AMD in memory: keys, certificates, revocation lists, and chips that sign reports, by real crypto.

    world = AmdWorld()
    chip = world.chip()                                   # Milan, VCEK
    report = chip.report(report_data=binding)             # bytes
    verify(parse_report(report), endorsements=chip.endorsements(), roots=world.roots, now=NOW)

To break one thing: give `chip.report(...)` another field, `world.chip(...)` another certificate, or
`world.crl(...)` another list. RSA keys are made once a process, since they take long.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from constellation.attestation.snp.endorsements import Endorsements
from constellation.attestation.snp.report import (
    REPORT_BYTES,
    SIGNED_BYTES,
    Product,
    Report,
    SigningKey,
    Tcb,
)
from constellation.crypto import der

__all__ = ["NOW", "AmdWorld", "Chip", "certificate", "sign"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_YEAR = timedelta(days=365)
_SPLS = {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8}
_CPUID = {
    Product.MILAN: (0x19, 0x01, 1),
    Product.GENOA: (0x19, 0x11, 1),
    Product.TURIN: (0x1A, 0x02, 1),
}
TCBS = {
    Product.MILAN: Tcb(fmc=0, bootloader=4, tee=0, snp=24, microcode=219),
    Product.GENOA: Tcb(fmc=0, bootloader=10, tee=0, snp=23, microcode=84),
    Product.TURIN: Tcb(fmc=1, bootloader=2, tee=1, snp=4, microcode=75),
}
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
_ALGORITHM = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108"
    "300d06096086480165030402020500a203020130"
)


@functools.cache
def rsa_key(_name: str, bits: int = 4096) -> rsa.RSAPrivateKey:
    """Make a key, the same one for the same name."""
    return rsa.generate_private_key(65537, bits)


def sign(key: rsa.RSAPrivateKey, tbs: bytes, *, algorithm: bytes = _ALGORITHM) -> bytes:
    """Wrap what is to be signed into a certificate or list, as AMD signs."""
    signature = key.sign(tbs, _PSS, hashes.SHA384())
    return der.write(der.SEQUENCE, tbs, algorithm, der.write(der.BIT_STRING, b"\0", signature))


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (40 * first + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return der.write(der.OID, content)


def name(common_name: str) -> bytes:
    value = der.write(0x0C, common_name.encode())
    pair = der.write(der.SEQUENCE, oid("2.5.4.3"), value)
    return der.write(der.SEQUENCE, der.write(der.SET, pair))


def integer(number: int) -> bytes:
    return der.write(der.INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def time(at: datetime) -> bytes:
    return der.write(der.UTC_TIME, at.strftime("%y%m%d%H%M%SZ").encode())


def extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = der.write(der.BOOLEAN, b"\xff") if critical else b""
    return der.write(der.SEQUENCE, oid(dotted), flag, der.write(der.OCTET_STRING, value))


AUTHORITY = (
    extension("2.5.29.19", der.write(der.SEQUENCE, der.write(der.BOOLEAN, b"\xff")), critical=True),
    extension("2.5.29.15", der.write(der.BIT_STRING, b"\x02\x04"), critical=True),
)


def spki(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate(
    *,
    subject: str,
    issuer: str,
    public_key: bytes,
    by: rsa.RSAPrivateKey,
    serial: int,
    extensions: tuple[bytes, ...],
    not_before: datetime = NOW - _YEAR,
    not_after: datetime = NOW + _YEAR,
    algorithm: bytes = _ALGORITHM,
) -> bytes:
    """Issue a certificate (DER)."""
    tbs = der.write(
        der.SEQUENCE,
        der.write(der.context(0), integer(2)),
        integer(serial),
        algorithm,
        name(issuer),
        der.write(der.SEQUENCE, time(not_before), time(not_after)),
        name(subject),
        public_key,
        der.write(der.context(3), der.write(der.SEQUENCE, *extensions)),
    )
    return sign(by, tbs, algorithm=algorithm)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A chip and the key that it signs with; certificates are DER."""

    product: Product
    kind: SigningKey
    key: ec.EllipticCurvePrivateKey
    tcb: Tcb
    hwid: bytes
    vek: bytes
    intermediate: bytes
    crl: bytes | None

    def endorsements(self, **changed: bytes | None) -> Endorsements:
        """Give what comes with this chip's reports."""
        given = {"vek": self.vek, "intermediate": self.intermediate, "crl": self.crl}
        return Endorsements(**(given | changed))  # type: ignore[arg-type] # vek is bytes

    def report(self, **changed: int | bytes) -> bytes:
        """Sign a report (bytes); `changed` are fields of `Report`."""
        version = int(changed.get("version", 5))
        family, model, stepping = _CPUID[self.product] if version > 2 else (0, 0, 0)
        tcb = self.tcb.pack(product=self.product)
        fields: dict[str, int | bytes] = {
            "version": 5,
            "policy": 0x30000,
            "signature_algo": 1,
            "platform_info": 0x25,
            "key_info": {SigningKey.VCEK: 0, SigningKey.VLEK: 4}[self.kind],
            "measurement": b"\x4d" * 48,
            "report_id": b"\x1d" * 32,
            "report_id_ma": b"\xff" * 32,
            "cpuid_fam_id": family,
            "cpuid_mod_id": model,
            "cpuid_step": stepping,
            "chip_id": self.hwid.ljust(64, b"\0"),
            "current_version": bytes((40, 55, 1)),
            "committed_version": bytes((40, 55, 1)),
        }
        fields |= {f"{w}_tcb": tcb for w in ("current", "reported", "committed", "launch")}
        raw = replace(Report.parse(bytes(REPORT_BYTES)), **(fields | changed)).pack()  # type: ignore[arg-type] # names are fields
        return self.signed(raw)

    def signed(self, raw: bytes) -> bytes:
        """Sign the first 672 bytes of a report anew."""
        message = raw[:SIGNED_BYTES]
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA384())))
        numbers = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return message + numbers.ljust(REPORT_BYTES - SIGNED_BYTES, b"\0")


@dataclass(frozen=True, kw_only=True)
class AmdWorld:
    """One product's root; `roots` is what a verifier is given."""

    product: Product = Product.MILAN
    key_name: str = "ark"
    not_before: datetime = NOW - _YEAR
    not_after: datetime = NOW + _YEAR
    roots: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        ark = certificate(
            subject=f"ARK-{self.product}", issuer=f"ARK-{self.product}",
            public_key=spki(self.root_key), by=self.root_key, serial=0x10000, extensions=AUTHORITY,
            not_before=self.not_before, not_after=self.not_after,
        )  # fmt: skip
        object.__setattr__(self, "roots", (ark,))

    @property
    def root_key(self) -> rsa.RSAPrivateKey:
        return rsa_key(self.key_name)

    def crl(
        self,
        *,
        revoked: tuple[int, ...] = (),
        this_update: datetime = NOW - timedelta(days=30),
        next_update: datetime = NOW + timedelta(days=30),
        issuer: str = "",
        by: rsa.RSAPrivateKey | None = None,
        extensions: tuple[bytes, ...] = (),
    ) -> bytes:
        """Issue a revocation list (DER)."""
        entries = tuple(der.write(der.SEQUENCE, integer(n), time(this_update)) for n in revoked)
        tbs = der.write(
            der.SEQUENCE,
            integer(1),
            _ALGORITHM,
            name(issuer or f"ARK-{self.product}"),
            time(this_update),
            time(next_update),
            der.write(der.SEQUENCE, *entries) if entries else b"",
            der.write(der.context(0), der.write(der.SEQUENCE, *extensions)) if extensions else b"",
        )
        return sign(by or self.root_key, tbs)

    def intermediate(self, kind: SigningKey = SigningKey.VCEK, **changed: object) -> bytes:
        """Issue the ASK or ASVK."""
        infix = "" if kind is SigningKey.VCEK else "VLEK-"
        given: dict[str, object] = {
            "subject": f"SEV-{infix}{self.product}",
            "issuer": f"ARK-{self.product}",
            "public_key": spki(rsa_key("ask")),
            "by": self.root_key,
            "serial": 0x10001 if kind is SigningKey.VCEK else 0x10101,
            "extensions": AUTHORITY,
        }
        return certificate(**(given | changed))  # type: ignore[arg-type] # names are arguments

    def chip(
        self,
        number: int = 1,
        *,
        kind: SigningKey = SigningKey.VCEK,
        tcb: Tcb | None = None,
        extensions: tuple[bytes, ...] | None = None,
        **changed: object,
    ) -> Chip:
        """Make a chip; `extensions` and `changed` replace parts of its certificate."""
        key = chip_key(number)
        tcb = tcb or TCBS[self.product]
        size = 8 if self.product is Product.TURIN else 64
        hwid = hashlib.shake_256(b"chip %d" % number).digest(size)
        infix = "" if kind is SigningKey.VCEK else "VLEK-"
        given: dict[str, object] = {
            "subject": f"SEV-{kind}",
            "issuer": f"SEV-{infix}{self.product}",
            "public_key": spki(key),
            "by": rsa_key("ask"),
            "serial": 0,
            "extensions": extensions or vek_extensions(self.product, kind, tcb, hwid),
        }
        return Chip(
            product=self.product, kind=kind, key=key, tcb=tcb,
            hwid=hwid if kind is SigningKey.VCEK else b"",
            vek=certificate(**(given | changed)),  # type: ignore[arg-type] # names are arguments
            intermediate=self.intermediate(kind), crl=self.crl(),
        )  # fmt: skip


@functools.cache
def chip_key(number: int) -> ec.EllipticCurvePrivateKey:
    """Give a chip's key, the same one for the same number."""
    return ec.derive_private_key(1000 + number, ec.SECP384R1())


def vek_extensions(product: Product, kind: SigningKey, tcb: Tcb, hwid: bytes) -> tuple[bytes, ...]:
    """Write AMD's extensions of a VCEK or VLEK certificate."""
    base = "1.3.6.1.4.1.3704.1"
    turin = product is Product.TURIN
    stepped = "Milan-B0" if product is Product.MILAN and kind is SigningKey.VCEK else str(product)
    found = [
        extension(f"{base}.1", integer(int(turin))),
        extension(f"{base}.2", der.write(der.IA5_STRING, stepped.encode())),
        *(extension(f"{base}.3.{n}", integer(getattr(tcb, part))) for part, n in _SPLS.items()),
        *(extension(f"{base}.3.{n}", integer(0)) for n in ((5, 6, 7) if turin else (4, 5, 6, 7))),
    ]
    if turin:
        found.append(extension(f"{base}.3.9", integer(tcb.fmc)))
    if kind is SigningKey.VCEK:
        found.append(extension(f"{base}.4", hwid))
    else:
        found.append(extension(f"{base}.5", der.write(der.IA5_STRING, b"CN=cloud.example")))
    return tuple(found)
