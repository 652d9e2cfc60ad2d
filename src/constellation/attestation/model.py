"""The conceptual messages of attestation, as types: trust is a change of type, and nothing else.

bytes -> Evidence (untrusted) -> Authentic[Claims] (verified) -> AttestationResult (appraised).
Source: RFC 9334 (RATS Architecture), sections 4 and 8. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, NewType, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "AttestationResult",
    "Attester",
    "Authentic",
    "Binding",
    "Claims",
    "Evidence",
    "NodeAttester",
    "Nonce",
    "Variant",
    "Verifier",
]

Nonce = NewType("Nonce", bytes)
"""32 bytes chosen by the verifier for one exchange (RFC 9334, section 10.2)."""

Binding = NewType("Binding", bytes)
"""64 bytes (SHA-512) that evidence commits to: which channel, for which purpose, for whom."""

Claims = Mapping[str, bytes | int]
"""What evidence says, flat: claim name -> value. Names: `pcr4`, `measurement`, `tcb.microcode`."""

C_co = TypeVar("C_co", covariant=True)


class Variant(StrEnum):
    """A way to attest (design, section 7)."""

    AZURE_SEV_SNP = "azure-sev-snp"
    AZURE_TDX = "azure-tdx"
    AZURE_TRUSTEDLAUNCH = "azure-trustedlaunch"
    GCP_SEV_SNP = "gcp-sev-snp"
    GCP_TDX = "gcp-tdx"
    GCP_SEV_ES = "gcp-sev-es"
    AWS_SEV_SNP = "aws-sev-snp"
    AWS_NITRO_TPM = "aws-nitro-tpm"
    QEMU_TDX = "qemu-tdx"
    QEMU_SEV_SNP = "qemu-sev-snp"
    QEMU_VTPM = "qemu-vtpm"
    LOCAL_VTPM = "local-vtpm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an attester sends. Opaque and untrusted until a `Verifier` has read it."""

    variant: Variant
    data: bytes


@dataclass(frozen=True, slots=True)
class Authentic(Generic[C_co]):
    """Claims whose signature, chain and binding hold. Only `verify` functions make one.

    Authentic is not acceptable: a genuine chip can run the wrong image. Pass it to `appraise`.
    """

    claims: C_co


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """What a relying party may act on: evidence that is authentic and passed the policy.

    `attester_id` is the SHA-256 (32 bytes) of the key that signed for this machine (the AK, or the
    chip's id), the same after a reboot. `unchecked` has a line for every claim that the policy
    accepts whatever it is, with the reason; `warnings` what people must be told each time.
    """

    variant: Variant
    attester_id: bytes
    claims: Claims
    unchecked: tuple[str, ...]
    warnings: tuple[str, ...]


class Attester(Protocol):
    """Produces evidence about the machine it runs on."""

    async def attest(self, binding: Binding) -> Evidence:
        """Collect evidence that commits to `binding`.

        Raises:
            Unavailable: the device did not answer.
        """
        ...


@runtime_checkable
class NodeAttester(Attester, Protocol):
    """An attester that a cluster's node has: it knows whom verifiers will take it for."""

    async def attester_id(self) -> bytes:
        """Give the `attester_id` of an `AttestationResult` over its evidence.

        Raises:
            Unavailable: the device did not answer.
        """
        ...


class Verifier(Protocol):
    """Verifies and appraises evidence of one variant; pure, so it takes the time as an argument."""

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Authenticate, then judge against the policy that this verifier was made with.

        Raises:
            FormatError: the evidence does not follow its specification.
            Untrusted: a signature, chain or binding does not hold.
            Rejected: authentic, but refused; carries every finding, not only the first.
        """
        ...
