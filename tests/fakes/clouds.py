"""One accepted machine a variant, made of the worlds of chips and clouds: evidence and verifier.

machine = Machine.make(Variant.GCP_SEV_SNP)
machine.appraise(machine.evidence())                     # accepted
machine.appraise(machine.evidence(vcek=other.vek))       # one field replaced
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from constellation.attestation import snp
from constellation.attestation.google.technology import Technology
from constellation.attestation.hcl.report import ReportType
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms import (
    aws_nitro_tpm,
    aws_sev_snp,
    azure_sev_snp,
    azure_tdx,
    azure_trustedlaunch,
    chip,
    gcp_sev_es,
    gcp_sev_snp,
    qemu_vtpm,
    vtpm,
)
from constellation.attestation.snp.report import SigningKey
from constellation.attestation.tdx.status import TcbStatus
from constellation.attestation.tpm.eventlog import EventType
from constellation.attestation.tpm.structures import Alg
from constellation.base import decode
from tests.fakes import azure
from tests.fakes.amd import NOW, AmdWorld
from tests.fakes.aws_nitro import NitroWorld
from tests.fakes.certificates import Authority, make
from tests.fakes.google import GoogleWorld
from tests.fakes.intel import IntelWorld, td_report
from tests.fakes.vtpm import SoftTpm

if TYPE_CHECKING:
    from collections.abc import Callable

    from constellation.attestation.model import AttestationResult, Verifier

__all__ = ["BINDING", "NOW", "VARIANTS", "Machine"]

BINDING = Binding(b"b" * 64)
DOCUMENT = b"document"
MEASUREMENT = b"\x4d" * 48
_CSP = "CN=cloud.example"


@dataclass
class Machine:
    """A machine, what it sends for a binding, and who judges it."""

    variant: Variant
    tpm: SoftTpm
    fields: Callable[[Binding], dict[str, Any]]
    kind: type[Any]
    verifier: Verifier
    now: Any = NOW

    def evidence(self, binding: Binding = BINDING, **changed: Any) -> Evidence:
        """Attest; `changed` replaces fields of the evidence."""
        document = self.kind(**(self.fields(binding) | changed))
        return Evidence(variant=self.variant, data=decode.dump(document))

    def appraise(self, evidence: Evidence | None = None, **changed: Any) -> AttestationResult:
        arguments = {"binding": BINDING, "now": self.now} | changed
        return self.verifier.appraise(evidence or self.evidence(), **arguments)

    @classmethod
    def make(cls, variant: Variant, number: int = 1) -> Machine:
        """Make machine `number` of a variant, in a world of its own."""
        return _MAKERS[variant](number)


def _cluster(bank: Alg = Alg.SHA256) -> dict[str, Any]:
    digest = hashlib.new(bank.name.lower(), DOCUMENT).digest()
    return {"node_document_digest": digest, "cluster_id": None}


def _amd(number: int) -> AmdWorld:
    return AmdWorld(key_name=f"ark {number}")


def _minimum(world: AmdWorld) -> dict[Any, Any]:
    tcb = world.chip().tcb
    return {snp.Line.MILAN: tcb}


def _azure_sev_snp(number: int) -> Machine:
    amd, tpm = _amd(number), SoftTpm(rsa_ak=True)
    machine = amd.chip(number)
    raw = azure.runtime_data(tpm.public_key)
    report = machine.report(report_data=azure.report_data(raw))
    policy = azure_sev_snp.policy(
        tpm.reference(),
        measurements=(MEASUREMENT,),
        id_key_digests=(),
        minimum_tcb=_minimum(amd),
        **_cluster(),
    )

    def fields(binding: Binding) -> dict[str, Any]:
        return {
            "tpm": tpm.part(binding),
            "hcl_report": azure.hcl_report(report, raw),
            "vcek": machine.vek,
            "ask": machine.intermediate,
            "crl": machine.crl,
        }

    verifier = azure_sev_snp.AzureSnpVerifier(policy=policy, trust_roots=amd.roots)
    kind = azure_sev_snp.AzureSnpEvidence
    return Machine(Variant.AZURE_SEV_SNP, tpm, fields, kind, verifier)


def _azure_tdx(number: int) -> Machine:
    intel, tpm = IntelWorld(), SoftTpm(rsa_ak=True)
    raw = azure.runtime_data(tpm.public_key, number=number)
    data = azure.report_data(raw)
    intel.body = td_report(report_data=data, td_attributes=0)
    tdreport = bytearray(1024)
    tdreport[128:192] = data
    tdreport[528:576] = intel.body.mr_td
    policy = azure_tdx.policy(
        tpm.reference(),
        mr_td=(intel.body.mr_td,),
        statuses=(TcbStatus.UP_TO_DATE,),
        minimum_tcb_evaluation=1,
        **_cluster(),
    )

    def fields(binding: Binding) -> dict[str, Any]:
        return {
            "tpm": tpm.part(binding),
            "hcl_report": azure.hcl_report(bytes(tdreport), raw, ReportType.TDX),
            "td_quote": intel.quote(data),
            "collateral": intel.collateral().dump(),
        }

    verifier = azure_tdx.AzureTdxVerifier(policy=policy, trust_roots=intel.roots)
    kind = azure_tdx.AzureTdxEvidence
    return Machine(Variant.AZURE_TDX, tpm, fields, kind, verifier, now=intel.now)


def _azure_trustedlaunch(_number: int) -> Machine:
    ca, tpm = azure.MicrosoftCa(NOW), SoftTpm(rsa_ak=True)
    certificate = ca.certify(tpm.public_key)
    policy = azure_trustedlaunch.policy(tpm.reference(), **_cluster())

    def fields(binding: Binding) -> dict[str, Any]:
        return {
            "tpm": tpm.part(binding),
            "ak_certificate": certificate.ljust(4096, b"\0"),
            "ak_chain": (ca.signer.der,),
        }

    verifier = azure_trustedlaunch.AzureTrustedLaunchVerifier(
        policy=policy, trust_roots=(ca.root.der,)
    )
    kind = azure_trustedlaunch.AzureTrustedLaunchEvidence
    return Machine(Variant.AZURE_TRUSTEDLAUNCH, tpm, fields, kind, verifier)


def _gce_tpm(technology: Technology) -> SoftTpm:
    tpm = SoftTpm()
    data = b"GCE NonHostInfo\0" + bytes([technology]) + bytes(15)
    tpm.measure(0, EventType.EV_NONHOST_INFO, data)
    return tpm


def _gcp_sev_es(_number: int) -> Machine:
    google, tpm = GoogleWorld(NOW), _gce_tpm(Technology.AMD_SEV_ES)
    certificate = google.certify(tpm.public_key).public_bytes(Encoding.DER)
    policy = gcp_sev_es.policy(tpm.reference(), project_ids=("project",), **_cluster())

    def fields(binding: Binding) -> dict[str, Any]:
        return {
            "tpm": tpm.part(binding),
            "ak_certificate": certificate,
            "ak_chain": (google.intermediate.der,),
        }

    verifier = gcp_sev_es.GcpSevEsVerifier(policy=policy, trust_roots=(google.root.der,))
    return Machine(Variant.GCP_SEV_ES, tpm, fields, gcp_sev_es.GcpSevEsEvidence, verifier)


def _gcp_sev_snp(number: int) -> Machine:
    amd, google, tpm = _amd(number), GoogleWorld(NOW), _gce_tpm(Technology.AMD_SEV_SNP)
    machine = amd.chip(number)
    certificate = google.certify(tpm.public_key).public_bytes(Encoding.DER)
    policy = gcp_sev_snp.policy(
        tpm.reference(),
        measurements=(MEASUREMENT,),
        minimum_tcb=_minimum(amd),
        project_ids=("project",),
        **_cluster(),
    )

    def fields(binding: Binding) -> dict[str, Any]:
        part = tpm.part(binding)
        signed = chip.report_data(binding, companion=part.ak_public)
        return {
            "tpm": part,
            "ak_certificate": certificate,
            "ak_chain": (google.intermediate.der,),
            "report": machine.report(report_data=signed),
            "vcek": machine.vek,
            "ask": machine.intermediate,
            "crl": machine.crl,
        }

    verifier = gcp_sev_snp.GcpSnpVerifier(
        policy=policy, chip_roots=amd.roots, trust_roots=(google.root.der,)
    )
    return Machine(Variant.GCP_SEV_SNP, tpm, fields, gcp_sev_snp.GcpSnpEvidence, verifier)


def _aws_nitro_tpm(_number: int) -> Machine:
    nitro, tpm = NitroWorld(NOW), SoftTpm(bank=Alg.SHA384)
    policy = aws_nitro_tpm.policy(tpm.reference(), **_cluster(Alg.SHA384))

    def fields(binding: Binding) -> dict[str, Any]:
        nonce = vtpm.qualifying_data(binding)
        return {"document": nitro.document(tpm.pcrs, nonce=nonce), "event_log": tpm.log.pack()}

    verifier = aws_nitro_tpm.AwsNitroTpmVerifier(policy=policy, trust_roots=(nitro.root.der,))
    return Machine(Variant.AWS_NITRO_TPM, tpm, fields, aws_nitro_tpm.AwsNitroTpmEvidence, verifier)


def _aws_sev_snp(number: int) -> Machine:
    amd, nitro, tpm = _amd(number), NitroWorld(NOW), SoftTpm(bank=Alg.SHA384)
    machine = amd.chip(number, kind=SigningKey.VLEK)
    policy = aws_sev_snp.policy(
        tpm.reference(),
        measurements=(MEASUREMENT,),
        minimum_tcb=_minimum(amd),
        csp_ids=(_CSP,),
        **_cluster(Alg.SHA384),
    )

    def fields(binding: Binding) -> dict[str, Any]:
        document = nitro.document(tpm.pcrs, nonce=vtpm.qualifying_data(binding))
        signed = chip.report_data(binding, companion=document)
        return {
            "report": machine.report(report_data=signed),
            "vlek": machine.vek,
            "asvk": machine.intermediate,
            "crl": machine.crl,
            "document": document,
            "event_log": tpm.log.pack(),
        }

    verifier = aws_sev_snp.AwsSnpVerifier(
        policy=policy, chip_roots=amd.roots, trust_roots=(nitro.root.der,)
    )
    return Machine(Variant.AWS_SEV_SNP, tpm, fields, aws_sev_snp.AwsSnpEvidence, verifier)


def _qemu_vtpm(_number: int) -> Machine:
    ca, tpm = Authority.root("local cloud", now=NOW), SoftTpm()
    certificate = make("AK", tpm.public_key, issuer=ca, now=NOW).public_bytes(Encoding.DER)
    policy = qemu_vtpm.policy(tpm.reference(), **_cluster())

    def fields(binding: Binding) -> dict[str, Any]:
        return {"tpm": tpm.part(binding), "ak_certificate": certificate}

    verifier = qemu_vtpm.QemuVtpmVerifier(policy=policy, trust_roots=(ca.der,))
    return Machine(Variant.QEMU_VTPM, tpm, fields, qemu_vtpm.QemuVtpmEvidence, verifier)


_MAKERS: dict[Variant, Callable[[int], Machine]] = {
    Variant.AWS_NITRO_TPM: _aws_nitro_tpm,
    Variant.AWS_SEV_SNP: _aws_sev_snp,
    Variant.AZURE_SEV_SNP: _azure_sev_snp,
    Variant.AZURE_TDX: _azure_tdx,
    Variant.AZURE_TRUSTEDLAUNCH: _azure_trustedlaunch,
    Variant.GCP_SEV_ES: _gcp_sev_es,
    Variant.GCP_SEV_SNP: _gcp_sev_snp,
    Variant.QEMU_VTPM: _qemu_vtpm,
}
VARIANTS = tuple(_MAKERS)
