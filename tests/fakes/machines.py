"""A maker of machines that attest: real P-256 signatures over a small JSON evidence.

A `Maker` certifies the keys of its machines; a `Machine` signs (binding, claims); `appraiser` gives
the function that checks certificate, signature, binding and policy, as a verifier does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.atls.binding import channel_binding, verify_binding
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.policy import Policy, require
from constellation.base import decode
from constellation.base.errors import Untrusted
from constellation.crypto.signing import generate_key, sign, spki, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

VARIANT = Variant.QEMU_VTPM
_LABEL = "fake-machine-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quote:
    binding: bytes
    pcr4: bytes
    public_key: bytes
    certificate: bytes
    signature: bytes


def _sign(key: ec.EllipticCurvePrivateKey, message: bytes, purpose: str) -> bytes:
    return sign(key, message, label=_LABEL, cluster_id=b"", purpose=purpose)


@dataclass(slots=True, kw_only=True)
class Machine:
    """A ChannelAttester whose key a maker certified. `pcr4` is what it booted."""

    pcr4: bytes
    certificate: bytes
    key: ec.EllipticCurvePrivateKey
    variant: Variant = VARIANT
    asked: list[str] = field(default_factory=list)

    def quote(self, binding: Binding) -> Evidence:
        quote = _Quote(
            binding=binding,
            pcr4=self.pcr4,
            public_key=spki(self.key.public_key()),
            certificate=self.certificate,
            signature=_sign(self.key, binding + self.pcr4, "quote"),
        )
        return Evidence(variant=self.variant, data=decode.dump(quote))

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        self.asked.append(purpose)
        return self.quote(
            channel_binding(
                purpose=purpose,
                variant=self.variant,
                exporter=exporter,
                spki_digest=spki_digest,
                peer_nonce=peer_nonce,
            )
        )

    async def attest_verify(self, *, nonces_root: bytes, cluster_ca_digest: bytes) -> Evidence:
        self.asked.append("verify")
        return self.quote(
            verify_binding(nonces_root=nonces_root, cluster_ca_digest=cluster_ca_digest)
        )


class Maker:
    """Certifies machines; evidence of machines that another maker certified is untrusted."""

    def __init__(self) -> None:
        self._key = generate_key()
        self.public_key = spki(self._key.public_key())

    def machine(self, *, pcr4: bytes) -> Machine:
        key = generate_key()
        certificate = _sign(self._key, spki(key.public_key()), "certificate")
        return Machine(pcr4=pcr4, certificate=certificate, key=key)

    def appraiser(self, policy: Policy) -> Callable[[Evidence, Binding], AttestationResult]:
        def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
            quote = decode.load(_Quote, evidence.data, what="fake quote", max_bytes=10_000)
            verify(
                self.public_key,
                quote.certificate,
                quote.public_key,
                label=_LABEL,
                cluster_id=b"",
                purpose="certificate",
            )
            verify(
                quote.public_key,
                quote.signature,
                quote.binding + quote.pcr4,
                label=_LABEL,
                cluster_id=b"",
                purpose="quote",
            )
            if quote.binding != binding:
                raise Untrusted(
                    f"evidence is for another channel or purpose: binding "
                    f"{quote.binding.hex()[:16]}…, expected {binding.hex()[:16]}…"
                )
            claims = {"pcr4": quote.pcr4}
            return AttestationResult(
                variant=evidence.variant,
                attester_id=hashlib.sha256(quote.public_key).digest(),
                claims=claims,
                unchecked=require(policy, claims),
                warnings=(),
            )

        return appraise
