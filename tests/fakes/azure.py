"""Azure: a paravisor that binds its vTPM's AK to the chip's report; Microsoft's AK authority."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from constellation.attestation.hcl.report import HashType, HclReport, ReportType
from tests.fakes.certificates import Authority

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["MicrosoftCa", "hcl_report", "report_data", "runtime_data"]


def runtime_data(ak: rsa.RSAPublicKey, **changed: Any) -> bytes:
    """Write what the paravisor says; `changed` replaces fields at the top."""
    numbers = ak.public_numbers()
    jwk = {
        "kid": "HCLAkPub",
        "key_ops": ["sign"],
        "kty": "RSA",
        "e": "AQAB",
        "n": base64.urlsafe_b64encode(numbers.n.to_bytes(256, "big")).rstrip(b"=").decode(),
    }
    configuration = {
        "console-enabled": True,
        "secure-boot": True,
        "tpm-enabled": True,
        "tpm-persisted": True,
        "vmUniqueId": "00000000-0000-0000-0000-000000000000",
    }
    top = {"keys": [jwk], "vm-configuration": configuration, "user-data": "00" * 64}
    return json.dumps(top | changed).encode()


def report_data(raw: bytes) -> bytes:
    """What the paravisor asks the chip to sign."""
    return hashlib.sha256(raw).digest().ljust(64, b"\0")


def hcl_report(chip_report: bytes, raw: bytes, kind: ReportType = ReportType.SNP) -> bytes:
    """Write the NV index, padded as Azure does."""
    report = HclReport(
        version=2,
        status=0,
        report_type=kind,
        hw_report=chip_report.ljust(1184, b"\0"),
        hash_type=HashType.SHA256,
        runtime_data=raw,
        padding=2600 - 1236 - len(raw),
    )
    return report.pack()


class MicrosoftCa:
    """Certifies AKs of trusted launch VMs."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.root = Authority.root("Azure Virtual TPM Root", now=now)
        self.signer = self.root.authority("Global Virtual TPM CA", now=now)

    def certify(self, ak: Any, *, purposes: tuple[str, ...] = ("2.23.133.8.3",)) -> bytes:
        """Certify a key for an AK, with the extended key usages given."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.signer.certificate.subject)
            .public_key(ak)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now)
            .not_valid_after(self.signer.certificate.not_valid_after_utc)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=False,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if purposes:
            usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(p) for p in purposes])
            builder = builder.add_extension(usage, critical=False)
        signed: Any = builder.sign(self.signer.key, hashes.SHA256())
        der: bytes = signed.public_bytes(Encoding.DER)
        return der
