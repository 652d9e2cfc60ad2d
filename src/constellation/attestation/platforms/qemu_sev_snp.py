"""Variant `qemu-sev-snp`: a VM on your own hosts whose launch measurement we compute ourselves.

Who is believed: AMD's secure processor. Nobody else: firmware, kernel, initrd and command line are
in the launch measurement, and the node document is in HOST_DATA.

The verifier's procedure:
 1. The evidence is one canonical JSON document of the fields of `SnpEvidence`.
 2. The report is authentic: signed by a VCEK that leads to one of the given roots (`snp.verify`).
 3. Its report data is the binding, all 64 bytes: this channel, this purpose.
 4. Its claims pass the policy: `measurement` is one of those predicted from firmware and image,
    `host_data` is SHA-256 of the cluster's node document, no debugging, VMPL 0, firmware not too
    old, revocation list there and current.

There is no register that a running guest could extend, so nothing says afterwards that a node was
given to a cluster: nodes of this variant are workers that are made anew at each start.
What a malicious host can still do: not start a node, stop it, look at its traffic (encrypted), and
watch which memory it touches.
Sources: AMD 56860 rev. 1.58, sections 7.3 and 8.17; AMD 57230; design, sections 6 and 7.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.attestation import snp
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.policy import Exactly
from constellation.attestation.snp.firmware import Firmware
from constellation.attestation.snp.launch import QEMU, DirectBoot, cpuid_signature, predict
from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from constellation.attestation.policy import Policy
    from constellation.attestation.snp.device import SnpDevice
    from constellation.attestation.snp.report import Line, Report, Tcb

__all__ = [
    "Endorse",
    "QemuSnpAttester",
    "QemuSnpVerifier",
    "SnpEvidence",
    "measurement",
    "policy",
]

_MAX_EVIDENCE_BYTES = 1024 * 1024
_QEMU_MODELS: Mapping[snp.Line, tuple[int, int, int]] = {
    # family, model, stepping that QEMU gives a guest of -cpu EPYC-Milan, EPYC-Genoa, EPYC-Turin
    snp.Line.MILAN: (0x19, 0x01, 1),
    snp.Line.GENOA: (0x19, 0x11, 0),
    snp.Line.BERGAMO: (0x19, 0x11, 0),
    snp.Line.TURIN: (0x1A, 0x00, 0),
    snp.Line.TURIN_DENSE: (0x1A, 0x00, 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """What a node sends; untrusted. `intermediate` and `crl` are empty where it has none."""

    report: bytes
    vek: bytes
    intermediate: bytes
    crl: bytes


def measurement(*, firmware: bytes, uki: bytes, vcpus: int, line: Line) -> bytes:
    """Predict a node's launch measurement, 48 bytes: OVMF that starts a UKI, on QEMU.

    Args:
        firmware: OVMF with a table of kernel hashes (EDK2, OvmfPkg/AmdSev).
        uki: the node image's kernel, initrd and command line in one.
        vcpus: processors of the guest.
        line: which QEMU CPU model the guest is given (`EPYC-Milan`, `EPYC-Genoa`, `EPYC-Turin`).

    Raises:
        FormatError: the firmware has no tables for it.
    """
    family, model, stepping = _QEMU_MODELS[line]
    return predict(
        Firmware.parse(firmware),
        boot=DirectBoot(kernel_digest=hashlib.sha256(uki).digest()),
        vcpus=vcpus,
        vcpu_signature=cpuid_signature(family=family, model=model, stepping=stepping),
        hypervisor=QEMU,
    )


def policy(
    *,
    measurements: tuple[bytes, ...],
    minimum_tcb: Mapping[Line, Tcb],
    node_document_digest: bytes,
) -> Policy:
    """Give the rules for a node; that for `report_data` is each channel's, until then nothing fits.

    Args:
        measurements: accepted launch measurements, 48 bytes each, from `measurement`.
        minimum_tcb: accepted lines of chips with their oldest firmware, as in `snp`.
        node_document_digest: SHA-256 (32 bytes) of the cluster's node document.
    """
    return snp.default_policy(
        report_data=b"",
        measurements=measurements,
        host_data=node_document_digest,
        minimum_tcb=minimum_tcb,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuSnpVerifier:
    """Verifies and appraises `qemu-sev-snp` evidence; `trust_roots` are ARKs (DER).

    The policy's rule for `report_data` is replaced by the binding of each call.
    """

    policy: Policy
    trust_roots: tuple[bytes, ...]

    def appraise(self, evidence: Evidence, *, binding: Binding, now: datetime) -> AttestationResult:
        """Run the procedure above; see `Verifier` for what it raises."""
        document = _parse(evidence)
        authentic = snp.verify(
            snp.parse_report(document.report),
            endorsements=snp.Endorsements(
                vek=document.vek,
                intermediate=document.intermediate or None,
                crl=document.crl or None,
            ),
            roots=self.trust_roots,
            now=now,
        )
        report = authentic.claims.report
        if not hmac.compare_digest(report.report_data, binding):
            raise Untrusted(
                f"report: report data {report.report_data.hex()}, this channel has {binding.hex()}"
            )
        rules = {**self.policy, "report_data": Exactly(binding)}
        return AttestationResult(
            variant=Variant.QEMU_SEV_SNP,
            # two guests of one chip differ in their report id, which lives as long as the guest
            attester_id=hashlib.sha256(report.chip_id + report.report_id).digest(),
            claims=snp.claims(authentic),
            unchecked=snp.appraise(authentic, policy=rules),
            warnings=(),
        )


class Endorse(Protocol):
    """Finds what vouches for a report; `snp.kds.Kds` with its arguments filled in."""

    async def __call__(self, report: Report, *, certificates: bytes) -> snp.Endorsements:
        """Give endorsements; `certificates` is the host's table, may be empty."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuSnpAttester:
    """Collects evidence on a node: a report over the binding, with what vouches for its key."""

    device: SnpDevice
    endorse: Endorse

    async def attest(self, binding: Binding) -> Evidence:
        """Collect evidence that commits to `binding`; see `Attester` for what it raises."""
        raw = await self.device.report(binding)
        given = await self.endorse(snp.parse_report(raw.report), certificates=raw.certificates)
        document = SnpEvidence(
            report=raw.report,
            vek=given.vek,
            intermediate=given.intermediate or b"",
            crl=given.crl or b"",
        )
        return Evidence(variant=Variant.QEMU_SEV_SNP, data=decode.dump(document))


def _parse(evidence: Evidence) -> SnpEvidence:
    if evidence.variant is not Variant.QEMU_SEV_SNP:
        raise Untrusted(f"evidence of variant {evidence.variant}, expected {Variant.QEMU_SEV_SNP}")
    what = "qemu-sev-snp evidence"
    document = decode.load(SnpEvidence, evidence.data, what=what, max_bytes=_MAX_EVIDENCE_BYTES)
    if decode.dump(document) != evidence.data:
        raise FormatError(f"{what}: not in canonical form")
    return document
