"""The agent's machine: its variant is the command line's, its identity what verifiers find."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest

from constellation.attestation import registry
from constellation.attestation.model import Binding, NodeAttester, Variant
from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.measuring import measure_node_document
from constellation.attestation.platforms.node_events import bank_of
from constellation.attestation.platforms.vtpm import register_rules
from constellation.attestation.policy import Exactly
from constellation.attestation.tpm import pcr, replay
from constellation.attestation.tpm.device import Tpm
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.structures import Alg
from constellation.base.errors import Conflict, FormatError
from constellation.services.agent.machine import TpmMachine
from constellation.services.machine import tpm_places
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

DOCUMENT = b"document"
_SNP_OF_A_CHIP = {Variant.AWS_SEV_SNP, Variant.GCP_SEV_SNP, Variant.QEMU_SEV_SNP}
_NO_TPM: Any = object()
BINDING = Binding(b"b" * 64)
IMAGE_PCRS = {Variant.LOCAL_VTPM: (0, 4, 7, 9, 11), Variant.QEMU_VTPM: (4, 9, 11)}


@pytest.mark.parametrize("variant", [Variant.LOCAL_VTPM, Variant.QEMU_VTPM])
async def test_its_evidence_is_accepted_and_its_identity_is_what_the_verifier_finds(
    variant: Variant,
) -> None:
    ca = LocalCloudCa()
    log, extends = local_vtpm.firmware_log(bytes(32), "line", b"os")
    predicted = local_vtpm.predicted_pcrs(extends)
    with tempfile.TemporaryDirectory(prefix="agent") as name:
        folder = Path(name)
        (folder / "firmware").write_bytes(log)
        async with swtpm(folder) as socket:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.manufacture(tpm, ca.certify)
                for number, digest in extends:
                    await tpm.extend(number, digest)
            await local_vtpm.measure_node_document(
                socket, DOCUMENT, firmware_log=folder / "firmware", event_log=folder / "log"
            )
            machine = await TpmMachine.connect(
                socket, event_log=folder / "log", cache=folder, variant=variant
            )
            evidence = await machine.attest(BINDING)
            attester_id = await machine.attester_id()
            await machine.close()
    policy = node_policy(
        variant,
        ReferenceValues(registers={n: (predicted[n],) for n in IMAGE_PCRS[variant]}, launch={}),
        demands=None,
        identity=NodeIdentity(document=DOCUMENT, cluster_id=None),
    )
    judge = registry.verifier(variant, policy=policy, trust_roots=(ca.root,))
    result = judge.appraise(evidence, binding=BINDING, now=NOW)
    assert (result.variant, result.attester_id) == (variant, attester_id)


async def test_a_nitro_machine_measures_into_the_bank_that_its_documents_carry(
    tmp_path: Path,
) -> None:
    (tmp_path / "firmware").write_bytes(EventLog.new(Alg.SHA384).pack())
    bank, zero = bank_of(Variant.AWS_NITRO_TPM), bytes(48)
    async with swtpm(tmp_path) as socket:
        async with await Tpm.connect(socket) as tpm:
            await tpm.startup()
        await measure_node_document(
            socket,
            DOCUMENT,
            firmware_log=tmp_path / "firmware",
            event_log=tmp_path / "log",
            bank=bank,
        )
        machine = await TpmMachine.connect(
            socket, event_log=tmp_path / "log", cache=tmp_path, variant=Variant.AWS_NITRO_TPM
        )
        assert not await machine.is_given()
        await machine.give(b"i" * 32)
        assert await machine.is_given()
        with pytest.raises(Conflict):
            await machine.give(b"i" * 32)
        await machine.close()
        async with await Tpm.connect(socket) as tpm:
            pcrs = await tpm.read_pcrs((8, 15), bank=bank)
    rules = register_rules(
        {},
        node_document_digest=hashlib.sha384(DOCUMENT).digest(),
        cluster_id=b"i" * 32,
        bank=bank,
    )
    assert pcrs[8] == pcr.extend(bank, zero, hashlib.sha384(DOCUMENT).digest())
    assert rules["pcr15"] == Exactly(pcrs[15])
    log = EventLog.parse((tmp_path / "log").read_bytes())
    assert replay.registers(log, bank=bank, pcrs=(8, 15)) == pcrs


async def test_nothing_is_extended_that_the_firmwares_log_cannot_say(tmp_path: Path) -> None:
    (tmp_path / "firmware").write_bytes(EventLog.new(Alg.SHA256).pack())
    async with swtpm(tmp_path) as socket:
        async with await Tpm.connect(socket) as tpm:
            await tpm.startup()
        with pytest.raises(FormatError, match="SHA384"):
            await measure_node_document(
                socket,
                DOCUMENT,
                firmware_log=tmp_path / "firmware",
                event_log=tmp_path / "log",
                bank=Alg.SHA384,
            )
        async with await Tpm.connect(socket) as tpm:
            assert not any((await tpm.read_pcrs((8,), bank=Alg.SHA384))[8])


@pytest.mark.parametrize("variant", sorted(set(Variant) - _SNP_OF_A_CHIP))
def test_every_variant_of_a_cloud_with_a_tpm_knows_its_own_identity(variant: Variant) -> None:
    devices = registry.NodeDevices(tpm=_NO_TPM, event_log=Path("/log"), cache=Path("/nowhere"))
    known = isinstance(registry.attester(variant, devices), NodeAttester)
    assert known is (variant not in (Variant.GCP_TDX, Variant.QEMU_TDX))


async def test_a_variant_that_no_image_attests_with_is_refused() -> None:
    with tempfile.TemporaryDirectory(prefix="agent") as name:
        async with swtpm(Path(name)) as socket:
            with pytest.raises(FormatError, match="gcp-tdx"):
                await TpmMachine.connect(
                    socket, event_log=Path(name, "log"), cache=Path(name), variant=Variant.GCP_TDX
                )


def test_only_a_local_node_takes_its_tpm_from_a_socket() -> None:
    sockets = {v for v in Variant if tpm_places(v).tpm.suffix == ".sock"}
    assert sockets == {Variant.LOCAL_VTPM}
    places = tpm_places(Variant.QEMU_VTPM)
    assert str(places.tpm) == "/dev/tpmrm0"
    assert places.firmware_log.name == "binary_bios_measurements"
