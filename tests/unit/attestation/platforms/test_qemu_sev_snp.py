"""The whole procedure of qemu-sev-snp: a node's device, its endorsements, the verifier."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms.qemu_sev_snp import (
    QemuSnpAttester,
    QemuSnpVerifier,
    SnpEvidence,
    measurement,
    policy,
)
from constellation.attestation.snp import Endorsements, Line
from constellation.attestation.snp.appraise import MINIMUM_TCB
from constellation.attestation.snp.device import RawReport
from constellation.base import decode
from constellation.base.errors import FormatError, Rejected, Untrusted
from tests.fakes.amd import NOW, AmdWorld, Chip
from tests.unit.attestation.snp.test_launch import ovmf

if TYPE_CHECKING:
    from constellation.attestation.snp.report import Report

BINDING = Binding(hashlib.sha512(b"channel").digest())
DOCUMENT = hashlib.sha256(b"node document").digest()
WORLD = AmdWorld()
CHIP = WORLD.chip()
REFERENCE = measurement(firmware=ovmf(), uki=b"node image", vcpus=4, line=Line.MILAN)


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A guest on a chip: what firmware, image and host data it was started with."""

    chip: Chip = CHIP
    uki: bytes = b"node image"
    host_data: bytes = DOCUMENT

    async def report(self, report_data: bytes) -> RawReport:
        launched = measurement(firmware=ovmf(), uki=self.uki, vcpus=4, line=Line.MILAN)
        raw = self.chip.report(
            report_data=report_data, measurement=launched, host_data=self.host_data
        )
        return RawReport(report=raw, certificates=b"")

    async def endorse(self, report: Report, *, certificates: bytes) -> Endorsements:
        assert report.chip_id == self.chip.hwid
        assert not certificates
        return self.chip.endorsements()


def verifier() -> QemuSnpVerifier:
    rules = policy(
        measurements=(REFERENCE,), minimum_tcb=MINIMUM_TCB, node_document_digest=DOCUMENT
    )
    return QemuSnpVerifier(policy=rules, trust_roots=WORLD.roots)


async def evidence(guest: Guest) -> Evidence:
    return await QemuSnpAttester(device=guest, endorse=guest.endorse).attest(BINDING)


async def test_a_node_of_ours_is_accepted() -> None:
    result = verifier().appraise(await evidence(Guest()), binding=BINDING, now=NOW)
    assert result.variant is Variant.QEMU_SEV_SNP
    assert result.claims["measurement"] == REFERENCE
    assert len(result.attester_id) == 32


async def test_evidence_of_another_channel_is_refused() -> None:
    given = await evidence(Guest())
    with pytest.raises(Untrusted, match="report data"):
        verifier().appraise(given, binding=Binding(bytes(64)), now=NOW)


async def test_another_image_or_node_document_is_refused() -> None:
    for guest, claim in (
        (Guest(uki=b"other image"), "measurement"),
        (Guest(host_data=bytes(32)), "host_data"),
    ):
        with pytest.raises(Rejected) as refused:
            verifier().appraise(await evidence(guest), binding=BINDING, now=NOW)
        (only,) = refused.value.findings
        assert only.startswith(f"{claim}: found")


async def test_a_missing_list_is_a_finding() -> None:
    with pytest.raises(Rejected, match=r"crl\.present"):
        verifier().appraise(
            await evidence(Guest(chip=replace(CHIP, crl=None))), binding=BINDING, now=NOW
        )


async def test_evidence_has_one_spelling_and_one_variant() -> None:
    given = await evidence(Guest())
    with pytest.raises(FormatError, match="canonical"):
        verifier().appraise(replace(given, data=given.data + b" "), binding=BINDING, now=NOW)
    other = replace(given, variant=Variant.AZURE_SEV_SNP)
    with pytest.raises(Untrusted, match="variant"):
        verifier().appraise(other, binding=BINDING, now=NOW)
    empty = decode.dump(SnpEvidence(report=b"", vek=b"", intermediate=b"", crl=b""))
    with pytest.raises(FormatError, match="want 1184"):
        verifier().appraise(replace(given, data=empty), binding=BINDING, now=NOW)
