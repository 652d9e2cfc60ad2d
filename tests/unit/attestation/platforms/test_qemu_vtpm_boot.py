"""Evidence of a real boot: OVMF, our unified image, Debian's kernel, a node that waited on 9000.

The vector is what `make test-vm-image` kept of one run: the evidence, the channel's binding, the
node document, the authority of the machine's TPM, and the values that the build had predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.attestation.platforms.qemu_vtpm import QemuVtpmEvidence
from constellation.attestation.registry import verifier
from constellation.attestation.tpm.eventlog import EventLog, EventType
from constellation.attestation.tpm.replay import extended
from constellation.base import decode
from constellation.base.errors import Rejected, Untrusted

VECTOR = Path(__file__).parents[3] / "vectors" / "qemu_vtpm_boot.json"
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """The vector's fields."""

    evidence: bytes
    binding: bytes
    document: bytes
    root: bytes
    time: int
    reference: dict[int, bytes]

    def appraise(self) -> tuple[str, ...]:
        policy = node_policy(
            Variant.QEMU_VTPM,
            ReferenceValues(registers={n: (v,) for n, v in self.reference.items()}, launch={}),
            demands=None,
            identity=NodeIdentity(document=self.document, cluster_id=None),
        )
        judge = verifier(Variant.QEMU_VTPM, policy=policy, trust_roots=(self.root,))
        result = judge.appraise(
            Evidence(variant=Variant.QEMU_VTPM, data=self.evidence),
            binding=Binding(self.binding),
            now=datetime.fromtimestamp(self.time, UTC),
        )
        return result.unchecked


BOOT = decode.load(Boot, VECTOR.read_bytes().rstrip(), what="vector", max_bytes=MAX_BYTES)


def test_a_real_boot_is_accepted_against_what_the_build_predicted() -> None:
    assert sorted(BOOT.reference) == [4, 9, 11]
    unchecked = {line.partition(":")[0] for line in BOOT.appraise()}
    assert {"pcr0", "pcr1", "pcr2", "pcr3", "pcr5", "pcr6", "pcr7", "pcr10"} <= unchecked


@pytest.mark.parametrize("number", [4, 9, 11])
def test_another_prediction_is_refused_and_an_event_of_the_boot_is_named(number: int) -> None:
    other = replace(BOOT, reference={**BOOT.reference, number: b"\1" * 32})
    with pytest.raises(Rejected) as refused:
        other.appraise()
    (finding,) = refused.value.findings
    assert finding.startswith(f"pcr{number}: ")
    named = {4: "EV_EFI_BOOT_SERVICES_APPLICATION", 9: "Linux: command line", 11: ".linux"}
    assert named[number] in finding


def test_the_evidence_is_of_its_channel_alone() -> None:
    with pytest.raises(Untrusted, match="extraData"):
        replace(BOOT, binding=bytes(64)).appraise()


def test_the_boot_measured_what_the_prediction_counts_in_its_order() -> None:
    document = decode.load(QemuVtpmEvidence, BOOT.evidence, what="evidence", max_bytes=MAX_BYTES)
    log = EventLog.parse(document.tpm.event_log)
    assert [event.type for event in extended(log, pcr=4)] == [
        EventType.EV_EFI_ACTION,
        EventType.EV_SEPARATOR,
        EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
        EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
    ]
    assert len(extended(log, pcr=9)) == 2
    names = [event.data.decode("utf-16-le").rstrip("\0") for event in extended(log, pcr=11)]
    assert names[::2] == [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"]
    assert names[::2] == names[1::2]
