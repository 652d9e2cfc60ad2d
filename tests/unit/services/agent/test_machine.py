"""The agent's machine: its variant is the command line's, its identity what verifiers find."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from constellation.attestation import registry
from constellation.attestation.model import Binding, Variant
from constellation.attestation.node_rules import NodeIdentity, ReferenceValues, node_policy
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm
from constellation.base.errors import FormatError
from constellation.services.agent.machine import TpmMachine
from constellation.services.machine import tpm_places
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

DOCUMENT = b"document"
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
            machine = await TpmMachine.connect(socket, event_log=folder / "log", variant=variant)
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


async def test_a_variant_that_no_image_attests_with_is_refused() -> None:
    with tempfile.TemporaryDirectory(prefix="agent") as name:
        async with swtpm(Path(name)) as socket:
            with pytest.raises(FormatError, match="azure-tdx"):
                await TpmMachine.connect(
                    socket, event_log=Path(name, "log"), variant=Variant.AZURE_TDX
                )


def test_only_a_local_node_takes_its_tpm_from_a_socket() -> None:
    sockets = {v for v in Variant if tpm_places(v).tpm.suffix == ".sock"}
    assert sockets == {Variant.LOCAL_VTPM}
    places = tpm_places(Variant.QEMU_VTPM)
    assert str(places.tpm) == "/dev/tpmrm0"
    assert places.firmware_log.name == "binary_bios_measurements"
