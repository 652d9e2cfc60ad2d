"""AWS' Nitro hypervisor: certifies and signs attestation documents as the real one does."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tests.fakes.certificates import Authority, make

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

__all__ = ["NitroWorld"]

_PROTECTED = bytes.fromhex("a1013822")


class NitroWorld:
    """Root, regional authority, and a hypervisor that signs for its VMs."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.root = Authority.root("aws.nitro-enclaves", now=now)
        self.region = self.root.authority("eu-central-1.aws.nitro-enclaves", now=now)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return (self.root.certificate,)

    def document(
        self,
        pcrs: Mapping[int, bytes],
        *,
        nonce: bytes | None,
        field: str = "nitrotpm_pcrs",
        protected: bytes = _PROTECTED,
        unprotected: dict[int, int] | None = None,
        tagged: bool = False,
        curve: ec.EllipticCurve | None = None,
        **changed: Any,
    ) -> bytes:
        """Sign a document; `changed` replaces fields of its payload, None leaves one out."""
        key = ec.generate_private_key(curve or ec.SECP384R1())
        leaf = make("i-1-tpm", key, issuer=self.region, now=self.now, lifetime=timedelta(hours=3))
        fields: dict[str, Any] = {
            "module_id": "i-0123456789abcdef0-tpm0000000000000000",
            "digest": "SHA384",
            "timestamp": int(self.now.timestamp() * 1000),
            field: dict(pcrs),
            "certificate": leaf.public_bytes(Encoding.DER),
            "cabundle": [self.root.der, self.region.der],
            "public_key": None,
            "user_data": None,
            "nonce": nonce,
        }
        payload = cbor2.dumps(fields | changed)
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        outer = cbor2.dumps([protected, unprotected or {}, payload, signature])
        return (b"\xd2" if tagged else b"") + outer
