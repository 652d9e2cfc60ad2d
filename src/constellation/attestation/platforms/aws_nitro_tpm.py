"""Variant `aws-nitro-tpm`: the Nitro hypervisor signs the registers of its own TPM.

Who is believed: AWS and its hypervisor, for everything: memory is isolated by it, not encrypted
against it.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `AwsNitroTpmEvidence`.
 2. The NitroTPM document (not an enclave's) is signed under one of the given AWS roots, valid now,
    with SHA-256 of the binding as its nonce (`nitro.document`).
 3. The event log replays to the document's registers (SHA-384): PCR 0 to 15 without 10.
 4. The claims pass the policy; registers are explained.

No TPM quote is needed: the hypervisor reads the registers itself and signs them with the nonce.
Sources: AWS, "NitroTPM attestation document"; TCG PC Client Platform Firmware Profile 1.06.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation import chain
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.nitro import document as nitro
from constellation.attestation.platforms import vtpm
from constellation.attestation.policy import Unchecked
from constellation.attestation.tpm import replay
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy, Rule

__all__ = [
    "BANK",
    "WARNING",
    "AwsNitroTpmEvidence",
    "AwsNitroTpmVerifier",
    "VerifiedNitroTpm",
    "document_rules",
    "policy",
    "verify_document",
]

WARNING = "aws-nitro-tpm: the Nitro hypervisor isolates the nodes' memory; AWS is believed"

BANK = Alg.SHA384
"""The bank that NitroTPM documents carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsNitroTpmEvidence:
    """What a node sends; untrusted."""

    document: bytes
    event_log: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedNitroTpm:
    """An authentic NitroTPM document and its log."""

    document: nitro.Document
    log: EventLog

    @property
    def attester_id(self) -> bytes:
        """SHA-256 (32 bytes) of the module id: the instance and its TPM."""
        return hashlib.sha256(self.document.module_id.encode()).digest()

    @property
    def claims(self) -> dict[str, bytes | int]:
        """Registers as `pcr0` …, and what the hypervisor says of itself."""
        pcrs = self.document.pcrs
        return {
            **{f"pcr{number}": pcrs[number] for number in vtpm.QUOTED_PCRS},
            "nitro.module_id": self.document.module_id.encode(),
            "nitro.timestamp_ms": self.document.timestamp_ms,
            "nitro.user_data": self.document.user_data,
            "nitro.public_key": self.document.public_key,
        }


def verify_document(
    data: bytes, *, event_log: bytes, nonce: bytes, roots: tuple[bytes, ...], now: datetime
) -> VerifiedNitroTpm:
    """Verify steps 2 and 3.

    Raises:
        FormatError: document or log do not follow their specification.
        Untrusted: the first check that fails.
    """
    document = nitro.verify(
        nitro.parse(data),
        kind=nitro.Kind.NITRO_TPM,
        nonce=nonce,
        roots=tuple(chain.load(der, what="root") for der in roots),
        now=now,
    ).claims
    if missing := sorted(set(vtpm.QUOTED_PCRS) - document.pcrs.keys()):
        raise Untrusted(f"Nitro document: PCR {missing[0]} is missing")
    pcrs = {number: document.pcrs[number] for number in vtpm.QUOTED_PCRS}
    log = replay.verify(EventLog.parse(event_log), bank=BANK, pcrs=vtpm.logged(pcrs)).claims
    return VerifiedNitroTpm(document=document, log=log)


def document_rules() -> dict[str, Rule]:
    """Give a rule for each claim of the document beside the registers."""
    return {
        "nitro.module_id": Unchecked("names are given by admission"),
        "nitro.timestamp_ms": Unchecked("the nonce makes it fresh; certificates live three hours"),
        "nitro.user_data": Unchecked("chosen by the guest; the binding is in the nonce"),
        "nitro.public_key": Unchecked("chosen by the guest; nothing is encrypted to it"),
    }


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node; arguments as in `vtpm.register_rules`, SHA-384 (48 bytes)."""
    registers = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id, bank=BANK
    )
    return {**registers, **document_rules()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsNitroTpmVerifier:
    """Verifies and appraises `aws-nitro-tpm` evidence; `trust_roots` are AWS' (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        given = vtpm.open_evidence(AwsNitroTpmEvidence, evidence, variant=Variant.AWS_NITRO_TPM)
        verified = verify_document(
            given.document,
            event_log=given.event_log,
            nonce=vtpm.qualifying_data(binding),
            roots=self.trust_roots,
            now=now,
        )
        return AttestationResult(
            variant=Variant.AWS_NITRO_TPM,
            attester_id=verified.attester_id,
            claims=verified.claims,
            unchecked=vtpm.require(self.policy, verified.claims, log=verified.log, bank=BANK),
            warnings=(WARNING,),
        )
