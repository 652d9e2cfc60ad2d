"""Variant `qemu-vtpm`: a VM's software TPM that the local cloud's CA vouches for. For development.

Who is believed: everything around the VM, as with `local-vtpm`; the boot is a real one, though:
OVMF and systemd-boot measure into the registers what they start.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `QemuVtpmEvidence`.
 2. The AK's certificate is signed by one of the given authorities, and valid now. Such an authority
    certifies nothing but AKs.
 3. The AK's public area has the certified key and makes it an AK.
 4. The quote is that AK's, over SHA-256 of the binding and PCR 0 to 15; the event log replays.
 5. The claims pass the policy; registers are explained.

Sources: TCG TPM 2.0 Library 1.59; TCG PC Client Platform Firmware Profile 1.06; RFC 5280.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.attestation import chain
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import vtpm
from constellation.attestation.tpm.structures import Alg

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy

__all__ = ["WARNING", "QemuVtpmEvidence", "QemuVtpmVerifier", "policy"]

WARNING = (
    "qemu-vtpm is for development: whoever controls the machine that runs the VMs controls their "
    "TPMs, and can read their memory"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuVtpmEvidence:
    """What a node sends; untrusted. `ak_certificate` is DER."""

    tpm: vtpm.TpmPart
    ak_certificate: bytes


def policy(
    reference: Mapping[int, tuple[bytes, ...]],
    *,
    node_document_digest: bytes,
    cluster_id: bytes | None,
) -> Policy:
    """Give the rules for a node; arguments as in `vtpm.register_rules`."""
    registers = vtpm.register_rules(
        reference, node_document_digest=node_document_digest, cluster_id=cluster_id
    )
    return {**registers, **vtpm.TPM_RULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuVtpmVerifier:
    """Verifies and appraises `qemu-vtpm` evidence; `trust_roots` are local authorities (DER)."""

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = vtpm.open_evidence(QemuVtpmEvidence, evidence, variant=Variant.QEMU_VTPM)
        certificate = chain.load(document.ak_certificate, what="AK certificate")
        chain.verify(
            certificate,
            intermediates=(),
            roots=tuple(chain.load(der, what="root") for der in self.trust_roots),
            now=now,
            what="AK certificate",
        )
        ak = chain.public_key(certificate)
        tpm = vtpm.verify_tpm(document.tpm, ak=ak, binding=binding)
        return AttestationResult(
            variant=Variant.QEMU_VTPM,
            attester_id=tpm.attester_id,
            claims=tpm.claims,
            unchecked=vtpm.require(self.policy, tpm.claims, log=tpm.log, bank=Alg.SHA256),
            warnings=(WARNING,),
        )
