"""An Intel in memory: root, PCK CA, TCB signing key, one platform, its quoting enclave, collateral.

Everything is signed by real keys when it is asked for, from fields that a test may change:

    world = IntelWorld()
    world.revoked_by_pck_ca.append(world.pck_serial)
    with pytest.raises(Untrusted, match="revoked"):
        world.verify()
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from constellation.attestation.tdx import verify as tdx_verify
from constellation.attestation.tdx.attributes import TdAttribute
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import (
    INTEL_QE_VENDOR_ID,
    BodyType,
    EnclaveReport,
    Header,
    Quote,
    QuoteSignature,
    TdReport10,
    TdReport15,
    TdReport15Ex,
    parse_quote,
)

if TYPE_CHECKING:
    from constellation.attestation.model import Authentic
    from constellation.attestation.tdx.verify import VerifiedQuote

__all__ = ["NOW", "IntelWorld", "certificate", "td_report"]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
PPID = bytes(range(16))
FMSPC = bytes.fromhex("00806f050000")
_OID = bytes.fromhex("2a864886f84d010d01")
_QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
_ZERO_48 = bytes(48)


def td_report(**changed: Any) -> TdReport15:
    """Give the report of a TD that the default policy likes."""
    fields: dict[str, Any] = {
        "tee_tcb_svn": bytes([5, 1, 7, *bytes(13)]),
        "mr_seam": b"\x5e" * 48,
        "mr_signer_seam": _ZERO_48,
        "seam_attributes": bytes(8),
        "td_attributes": int(TdAttribute.SEPT_VE_DISABLE),
        "xfam": 0x602E7,
        "mr_td": b"\x0d" * 48,
        "mr_config_id": _ZERO_48,
        "mr_owner": _ZERO_48,
        "mr_owner_config": _ZERO_48,
        "rtmr0": b"\xa0" * 48,
        "rtmr1": b"\xa1" * 48,
        "rtmr2": b"\xa2" * 48,
        "rtmr3": _ZERO_48,
        "report_data": bytes(64),
        "tee_tcb_svn2": bytes([5, 1, 7, *bytes(13)]),
        "mr_service_td": _ZERO_48,
    }
    return TdReport15(**(fields | changed))


class IntelWorld:
    """One Intel and one platform. Change a field, then ask for `quote`, `collateral`, `verify`."""

    def __init__(self) -> None:
        """Make keys, and statements that find nothing wrong with the platform."""
        self.now = NOW
        self.root_key, self.ca_key, self.signing_key, self.pck_key, self.attestation_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(5)
        )
        self._forger = ec.generate_private_key(ec.SECP256R1())
        self.signs_quote = self.attestation_key
        self.signs_qe_report = self.pck_key
        self.names = {
            "root": "Intel SGX Root CA",
            "ca": "Intel SGX PCK Platform CA",
            "pck": "Intel SGX PCK Certificate",
            "signing": "Intel SGX TCB Signing",
        }
        self.validity = dict.fromkeys(self.names, (NOW - 100 * DAY, NOW + 1000 * DAY))
        self.pck_serial, self.ca_serial, self.signing_serial = 0x1001, 0x1002, 0x1003
        self.components = [7, 7, 2, 2, 3, 1, 0, 3, *([0] * 8)]
        self.pce_svn = 11
        self.with_sgx_extension = True
        self.forged: list[str] = []  # certificates that another key signs, in the issuer's name
        self.revoked_by_pck_ca: list[int] = []
        self.revoked_by_root: list[int] = []
        self.crl_window = (NOW - DAY, NOW + 30 * DAY)
        self.version = 5
        self.body: EnclaveReport | TdReport10 = td_report()
        self.vendor = INTEL_QE_VENDOR_ID
        self.auth_data = bytes(range(32))
        self.qe_report = EnclaveReport(
            cpu_svn=bytes(16),
            misc_select=bytes(4),
            isv_ext_prod_id=bytes(16),
            attributes=bytes.fromhex("1500000000000000e700000000000000"),
            mr_enclave=b"\x0e" * 32,
            mr_signer=_QE_SIGNER,
            config_id=bytes(64),
            isv_prod_id=2,
            isv_svn=6,
            config_svn=0,
            isv_family_id=bytes(16),
            report_data=bytes(64),
        )
        self.tcb_info = _tcb_info()
        self.qe_identity = _qe_identity()
        self._certificates: dict[str, tuple[object, bytes]] = {}

    @property
    def roots(self) -> tuple[bytes, ...]:
        """What a verifier pins."""
        return (self._der("root"),)

    def quote(self, report_data: bytes = bytes(64)) -> bytes:
        """Sign a quote over `report_data`."""
        body = replace(self.body, report_data=report_data)
        point = self.attestation_key.public_key().public_numbers()
        key = point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
        qe_report = self.qe_report
        if not any(qe_report.report_data):
            bound = hashlib.sha256(key + self.auth_data).digest() + bytes(32)
            qe_report = replace(qe_report, report_data=bound)
        quote = Quote(
            header=Header(
                version=self.version,
                att_key_type=2,
                tee_type=0 if isinstance(body, EnclaveReport) else 0x81,
                qe_svn=0,
                pce_svn=0,
                qe_vendor_id=self.vendor,
                user_data=bytes(20),
            ),
            body_type={
                EnclaveReport: BodyType.ENCLAVE,
                TdReport10: BodyType.TD_10,
                TdReport15: BodyType.TD_15,
                TdReport15Ex: BodyType.TD_15_EX,
            }[type(body)],
            body=body,
            signature=QuoteSignature(
                signature=bytes(64),
                attestation_key=key,
                qe_report=qe_report,
                qe_report_signature=_sign(self.signs_qe_report, qe_report.pack()),
                qe_auth_data=self.auth_data,
                pck_chain=b"".join(_pem(self._der(name)) for name in ("pck", "ca", "root")) + b"\0",
            ),
            signed=b"",
            trailing=b"",
        )
        signed = parse_quote(quote.pack()).signed
        signature = replace(quote.signature, signature=_sign(self.signs_quote, signed))
        return replace(quote, signature=signature).pack()

    def collateral(self) -> Collateral:
        """Sign what Intel says now."""
        chain = _pem(self._der("signing")) + _pem(self._der("root"))
        tcb_info, qe_identity = (
            json.dumps(d, separators=(",", ":")).encode() for d in (self.tcb_info, self.qe_identity)
        )
        return Collateral(
            tcb_info=tcb_info,
            tcb_info_signature=_sign(self.signing_key, tcb_info),
            tcb_info_issuer_chain=chain,
            qe_identity=qe_identity,
            qe_identity_signature=_sign(self.signing_key, qe_identity),
            qe_identity_issuer_chain=chain,
            pck_crl=self._crl("ca", self.ca_key, self.revoked_by_pck_ca),
            pck_crl_issuer_chain=_pem(self._der("ca")) + _pem(self._der("root")),
            root_ca_crl=self._crl("root", self.root_key, self.revoked_by_root),
        )

    def verify(self, **changed: Any) -> Authentic[VerifiedQuote]:
        """Verify the quote; `changed` replaces arguments, or fields of the collateral."""
        fields = {n: changed.pop(n) for n in list(changed) if n in Collateral.__slots__}
        arguments: dict[str, Any] = {
            "collateral": replace(self.collateral(), **fields),
            "roots": self.roots,
            "now": self.now,
        }
        data = changed.pop("quote", None) or self.quote()
        return tdx_verify.verify(parse_quote(data), **(arguments | changed))

    def become_enclave(self) -> None:
        """Make this the world of an SGX enclave, with a quote of version 3."""
        self.version, self.body = 3, replace(self.qe_report, mr_enclave=b"\xec" * 32)
        self.tcb_info["id"], self.qe_identity["id"] = "SGX", "QE"

    def _der(self, name: str) -> bytes:
        keys = {
            "root": (self.root_key, "root", self.root_key, 1),
            "ca": (self.ca_key, "root", self.root_key, self.ca_serial),
            "pck": (self.pck_key, "ca", self.ca_key, self.pck_serial),
            "signing": (self.signing_key, "root", self.root_key, self.signing_serial),
        }
        key, issuer, issuer_key, serial = keys[name]
        if name in self.forged:
            issuer_key = self._forger
        extension = self._extension() if name == "pck" and self.with_sgx_extension else None
        signed = (key, issuer_key, serial, extension, self.names[name], self.names[issuer])
        state = (*signed, self.validity[name])
        if name not in self._certificates or self._certificates[name][0] != state:
            der = certificate(
                self.names[name],
                key.public_key(),
                issuer=self.names[issuer],
                issuer_key=issuer_key,
                serial=serial,
                validity=self.validity[name],
                authority=name in ("root", "ca"),
                sgx_extension=extension,
            )
            self._certificates[name] = (state, der)
        return self._certificates[name][1]

    def _extension(self) -> bytes:
        tcb = [_pair(f"2.{i + 1}", _number(0x02, n)) for i, n in enumerate(self.components)]
        tcb.append(_pair("2.17", _number(0x02, self.pce_svn)))
        tcb.append(_pair("2.18", _tlv(0x04, bytes(self.components))))
        yes = _tlv(0x01, b"\xff")
        settings = b"".join(_pair(f"7.{i}", yes) for i in (1, 2, 3))
        return _tlv(
            0x30,
            _pair("1", _tlv(0x04, PPID))
            + _pair("2", _tlv(0x30, b"".join(tcb)))
            + _pair("3", _tlv(0x04, bytes(2)))
            + _pair("4", _tlv(0x04, FMSPC))
            + _pair("5", _number(0x0A, 1))
            + _pair("6", _tlv(0x04, b"\x1d" * 16))
            + _pair("7", _tlv(0x30, settings)),
        )

    def _crl(self, name: str, key: ec.EllipticCurvePrivateKey, revoked: list[int]) -> bytes:
        first, last = self.crl_window
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self.names[name]))
            .last_update(first)
            .next_update(last)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(first)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def certificate(
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    *,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    serial: int,
    validity: tuple[datetime, datetime],
    authority: bool,
    sgx_extension: bytes | None = None,
) -> bytes:
    """Certify a key as Intel does; gives DER."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if sgx_extension is not None:
        oid = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
        extension = x509.UnrecognizedExtension(oid, sgx_extension)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.DER)


def _tcb_info() -> dict[str, Any]:
    def level(svn: int, module: int, status: str, *advisories: str) -> dict[str, Any]:
        sgx = [svn, svn, 2, 2, 3, 1, 0, 3, *([0] * 8)]
        tdx = [module, 0, svn, *([0] * 13)]
        tcb = {
            "sgxtcbcomponents": [{"svn": n} for n in sgx],
            "pcesvn": 11,
            "tdxtcbcomponents": [{"svn": n} for n in tdx],
        }
        found = {"tcb": tcb, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
        return found | ({"advisoryIDs": list(advisories)} if advisories else {})

    identity = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": _time(NOW - DAY),
        "nextUpdate": _time(NOW + 29 * DAY),
        "fmspc": FMSPC.hex(),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 18,
        "tdxModule": copy.copy(identity),
        "tdxModuleIdentities": [
            {
                "id": "TDX_01",
                **identity,
                "tcbLevels": [
                    _identity_level(4, "UpToDate"),
                    _identity_level(2, "OutOfDate", "INTEL-SA-00999"),
                ],
            }
        ],
        "tcbLevels": [
            level(7, 5, "UpToDate"),
            level(6, 3, "SWHardeningNeeded", "INTEL-SA-00960"),
            level(5, 3, "OutOfDate", "INTEL-SA-00837"),
            level(3, 0, "Revoked"),
        ],
    }


def _qe_identity() -> dict[str, Any]:
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": _time(NOW - DAY),
        "nextUpdate": _time(NOW + 29 * DAY),
        "tcbEvaluationDataNumber": 18,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": _QE_SIGNER.hex().upper(),
        "isvprodid": 2,
        "tcbLevels": [
            _identity_level(4, "UpToDate"),
            _identity_level(2, "OutOfDate", "INTEL-SA-00615"),
        ],
    }


def _identity_level(svn: int, status: str, *advisories: str) -> dict[str, Any]:
    found = {"tcb": {"isvsvn": svn}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
    return found | ({"advisoryIDs": list(advisories)} if advisories else {})


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _tlv(tag: int, value: bytes) -> bytes:
    if len(value) < 0x80:
        return bytes([tag, len(value)]) + value
    size = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + value


def _number(tag: int, value: int) -> bytes:
    return _tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _pair(arcs: str, value: bytes) -> bytes:
    oid = _OID + bytes(int(arc) for arc in arcs.split("."))
    return _tlv(0x30, _tlv(0x06, oid) + value)
