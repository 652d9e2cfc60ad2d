"""A vTPM in memory: measures, keeps a log, and signs quotes with a real AK, as a cloud's would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from constellation.attestation.platforms.vtpm import QUOTED_PCRS, TpmPart, qualifying_data
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.device import AK_TEMPLATE
from constellation.attestation.tpm.eventlog import Event, EventLog, EventType
from constellation.attestation.tpm.public import Attribute, Curve, EccKey, Public, RsaKey, Scheme
from constellation.attestation.tpm.structures import (
    GENERATED,
    ST_ATTEST_QUOTE,
    Alg,
    Attest,
    ClockInfo,
    EcdsaSignature,
    PcrSelection,
    RsaSignature,
)

__all__ = ["SoftTpm"]

_DEFAULT_EVENTS = (
    (0, EventType.EV_S_CRTM_VERSION, b"firmware"),
    *((number, EventType.EV_SEPARATOR, bytes(4)) for number in range(8)),
    (4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"image"),
    (9, EventType.EV_IPL, b"command line"),
    (11, EventType.EV_IPL, b"sections"),
)


class SoftTpm:
    """Registers of one bank, their log, an AK."""

    def __init__(
        self, *, bank: Alg = Alg.SHA256, rsa_ak: bool = False, document: bytes = b"document"
    ) -> None:
        self.bank = bank
        self.without = Attribute(0)
        """Attributes that the AK lacks, as that of a guest that made it for something else."""
        self.key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
            rsa.generate_private_key(65537, 2048)
            if rsa_ak
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.boot(document)

    def boot(self, document: bytes = b"document") -> None:
        """Power-cycle: registers and log begin anew."""
        self.log = EventLog.new(self.bank)
        self.pcrs = {number: pcr.initial(self.bank, number) for number in range(pcr.COUNT)}
        for number, kind, data in _DEFAULT_EVENTS:
            self.measure(number, kind, data)
        self.measure(8, EventType.EV_IPL, document)

    def measure(self, number: int, kind: EventType, data: bytes) -> None:
        """Extend a register and append to the log."""
        digest = pcr.digest_of(self.bank, data)
        self.pcrs[number] = pcr.extend(self.bank, self.pcrs[number], digest)
        event = Event(pcr=number, type=kind, digests=((self.bank, digest),), data=data)
        self.log = self.log.appended(event)

    @property
    def public_key(self) -> Any:
        return self.key.public_key()

    @property
    def public(self) -> Public:
        """The AK's public area."""
        numbers: Any = self.public_key.public_numbers()
        template = replace(
            AK_TEMPLATE, object_attributes=AK_TEMPLATE.object_attributes & ~self.without
        )
        if isinstance(self.key, rsa.RSAPrivateKey):
            key: Any = RsaKey(key_bits=2048, exponent=0, modulus=numbers.n.to_bytes(256, "big"))
            return replace(template, scheme=Scheme(scheme=Alg.RSASSA, hash=Alg.SHA256), key=key)
        x, y = (n.to_bytes(32, "big") for n in (numbers.x, numbers.y))
        key = EccKey(curve=Curve.P256, kdf=Scheme(scheme=Alg.NULL), x=x, y=y)
        return replace(template, key=key)

    def reference(self) -> dict[int, tuple[bytes, ...]]:
        """What a policy should accept of the image's registers."""
        return {number: (self.pcrs[number],) for number in (4, 9, 11)}

    def quote(
        self, extra_data: bytes, *, pcrs: tuple[int, ...] = QUOTED_PCRS, magic: int = GENERATED
    ) -> bytes:
        """Write a TPMS_ATTEST."""
        values = {number: self.pcrs[number] for number in pcrs}
        return Attest(
            magic=magic,
            type=ST_ATTEST_QUOTE,
            qualified_signer=self.public.name(),
            extra_data=extra_data,
            clock_info=ClockInfo(clock=1, reset_count=2, restart_count=0, safe=True),
            firmware_version=3,
            pcr_select=(PcrSelection(bank=self.bank, pcrs=pcrs, size_bytes=3),),
            pcr_digest=pcr.quote_digest(Alg.SHA256, values),
        ).pack()

    def sign(self, message: bytes) -> bytes:
        """Write the TPMT_SIGNATURE of the AK."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            raw = self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            return RsaSignature(scheme=Alg.RSASSA, hash=Alg.SHA256, sig=raw).pack()
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        r_bytes, s_bytes = (n.to_bytes(32, "big") for n in (r, s))
        return EcdsaSignature(hash=Alg.SHA256, signature_r=r_bytes, signature_s=s_bytes).pack()

    def part(self, binding: Any, *, pcrs: tuple[int, ...] = QUOTED_PCRS, **how: Any) -> TpmPart:
        """Attest; `how` goes to `quote`."""
        message = self.quote(qualifying_data(binding), pcrs=pcrs, **how)
        return TpmPart(
            quote=message,
            signature=self.sign(message),
            ak_public=self.public.pack(),
            pcrs={number: self.pcrs[number] for number in pcrs},
            event_log=self.log.pack(),
        )
