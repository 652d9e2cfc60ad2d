"""A real TPM (swtpm) attests as Azure's and QEMU's machines do, and the verifiers judge it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from constellation.attestation import registry
from constellation.attestation.model import Binding, Variant
from constellation.attestation.platforms import azure_trustedlaunch, local_vtpm, qemu_vtpm
from constellation.attestation.platforms.azure_sev_snp import AzureSnpEvidence
from constellation.attestation.platforms.persistent_ak import (
    HCL_REPORT_INDEX,
    AzureSnpAttester,
    AzureTrustedLaunchAttester,
)
from constellation.attestation.platforms.qemu_vtpm_attester import QemuVtpmAttester
from constellation.attestation.snp.endorsements import Endorsements
from constellation.attestation.tpm.device import Tpm
from constellation.base import decode
from constellation.base.errors import Rejected, Unavailable, Untrusted
from tests.fakes.certificates import Authority, make
from tests.fakes.clouds import BINDING, NOW
from tests.fakes.tpm import swtpm

DOCUMENT = b"document"
LOG, EXTENDS = local_vtpm.firmware_log(b"\7" * 32, "line", b"ID=x\n")
REFERENCE = {n: (v,) for n, v in local_vtpm.predicted_pcrs(EXTENDS).items() if n in (4, 9, 11)}


@pytest.fixture
async def machine():  # type: ignore[no-untyped-def]  # noqa: ANN201
    ca = Authority.root("local cloud", now=NOW)

    def certify(spki: bytes) -> bytes:
        key: Any = load_der_public_key(spki)
        return make("AK", key, issuer=ca, now=NOW).public_bytes(Encoding.DER)

    with tempfile.TemporaryDirectory(prefix="tpm") as name:
        folder = Path(name)
        async with swtpm(folder) as socket, await Tpm.connect(socket) as tpm:
            await tpm.startup()
            await local_vtpm.manufacture(tpm, certify)
            for number, digest in EXTENDS:
                await tpm.extend(number, digest)
            (folder / "log").write_bytes(LOG)
            yield tpm, folder / "log", ca


def rules() -> dict[str, Any]:
    return {"node_document_digest": hashlib.sha256(DOCUMENT).digest(), "cluster_id": None}


async def test_a_qemu_machine_is_judged_by_its_registers(machine: Any) -> None:
    tpm, log, ca = machine
    verifier = registry.verifier(
        Variant.QEMU_VTPM, policy=qemu_vtpm.policy(REFERENCE, **rules()), trust_roots=(ca.der,)
    )
    evidence = await QemuVtpmAttester(tpm, log).attest(BINDING)
    with pytest.raises(Rejected) as refused:  # no node document was measured into PCR 8
        verifier.appraise(evidence, binding=BINDING, now=NOW)
    assert len(refused.value.findings) == 1
    assert refused.value.findings[0].startswith("pcr8: ")
    with pytest.raises(Untrusted, match="extraData"):
        verifier.appraise(evidence, binding=Binding(b"c" * 64), now=NOW)


async def test_a_local_ca_does_not_make_a_trusted_launch_machine(machine: Any) -> None:
    tpm, log, ca = machine
    policy = azure_trustedlaunch.policy(REFERENCE, **rules())
    roots = registry.published_roots(Variant.AZURE_TRUSTEDLAUNCH)
    evidence = await AzureTrustedLaunchAttester(tpm, log, ak_chain=()).attest(BINDING)
    for trusted, reason in ((roots, "was not given"), ((ca.der,), r"2\.5\.29\.37 is missing")):
        verifier = registry.verifier(
            Variant.AZURE_TRUSTEDLAUNCH, policy=policy, trust_roots=trusted
        )
        with pytest.raises(Untrusted, match=reason):
            verifier.appraise(evidence, binding=BINDING, now=NOW)


async def test_a_missing_log_is_said(machine: Any) -> None:
    tpm, log, _ = machine
    with pytest.raises(Unavailable, match="event log"):
        await QemuVtpmAttester(tpm, log.parent / "none").attest(BINDING)


class Thim:
    """Serves a chip's certificates, as Azure's host does."""

    async def endorsements(self) -> Endorsements:
        return Endorsements(vek=b"vcek", intermediate=b"ask", crl=None)


async def test_a_confidential_vm_sends_its_hcl_report_and_what_endorses_its_chip(
    machine: Any,
) -> None:
    tpm, log, _ = machine
    hcl = bytes(range(256)) * 4
    await tpm.nv_define(HCL_REPORT_INDEX, len(hcl))
    await tpm.nv_write(HCL_REPORT_INDEX, hcl)
    evidence = await AzureSnpAttester(tpm, log, source=Thim()).attest(BINDING)
    found = decode.load(AzureSnpEvidence, evidence.data, what="test", max_bytes=1 << 20)
    assert (found.hcl_report, found.vcek, found.ask, found.crl) == (hcl, b"vcek", b"ask", b"")
    assert set(found.tpm.pcrs) == set(range(16))


async def test_the_registry_gives_attesters_of_machines_with_a_persistent_ak(machine: Any) -> None:
    tpm, log, _ = machine
    for variant in (Variant.QEMU_VTPM, Variant.AZURE_TRUSTEDLAUNCH):
        devices = registry.NodeDevices(tpm=tpm, event_log=log, cache=log.parent)
        made = registry.attester(variant, devices)
        assert (await made.attest(BINDING)).variant is variant
