"""The whole local-vtpm procedure on a real swtpm."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation import registry
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import TpmEvidence
from constellation.attestation.policy import Exactly, OneOf, Policy, Rule
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.device import Tpm
from constellation.attestation.tpm.eventlog import Event, EventLog, EventType
from constellation.attestation.tpm.structures import Alg
from constellation.base import decode
from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

IMAGE = hashlib.sha256(b"node image").digest()
LINE = "constellation.provider=local constellation.variant=local-vtpm"
OS_RELEASE = b"ID=constellation\n"
DOCUMENT = b'{"clusterID":"a node document"}'
CLUSTER_ID = hashlib.sha256(b"cluster").digest()
BINDING = Binding(hashlib.sha512(b"channel").digest())


@dataclass(frozen=True)
class Recorded:
    """Evidence of one machine before and after it was given to a cluster."""

    ca: LocalCloudCa
    fresh: Evidence
    given: Evidence
    attester_id: bytes


async def power_on(socket: Path, folder: Path, *, image: bytes = IMAGE) -> None:
    log, extends = local_vtpm.firmware_log(image, LINE, OS_RELEASE)
    async with await Tpm.connect(socket) as tpm:
        for number, digest in extends:
            await tpm.extend(number, digest)
    (folder / "firmware").write_bytes(log)
    await local_vtpm.measure_node_document(
        socket, DOCUMENT, firmware_log=folder / "firmware", event_log=folder / "log"
    )


async def record(folder: Path, *, image: bytes = IMAGE) -> Recorded:
    ca = LocalCloudCa()
    async with swtpm(folder) as socket:
        async with await Tpm.connect(socket) as tpm:
            await local_vtpm.manufacture(tpm, ca.certify)
        await power_on(socket, folder, image=image)
        async with await Tpm.connect(socket) as tpm:
            attester = local_vtpm.LocalVtpmAttester(tpm, folder / "log")
            fresh = await attester.attest(BINDING)
            await local_vtpm.give_to_cluster(tpm, CLUSTER_ID, event_log=folder / "log")
            given_ = await attester.attest(BINDING)
            return Recorded(ca, fresh, given_, await attester.attester_id())


@pytest.fixture(scope="module")
def machine() -> Recorded:
    with tempfile.TemporaryDirectory(prefix="vtpm") as folder:
        return asyncio.run(record(Path(folder)))


def reference(image: bytes = IMAGE) -> dict[int, tuple[bytes, ...]]:
    _, extends = local_vtpm.firmware_log(image, LINE, OS_RELEASE)
    return {n: (v,) for n, v in local_vtpm.predicted_pcrs(extends).items()}


def rules(*, joined: bool = False, image: bytes = IMAGE) -> Policy:
    return local_vtpm.policy(
        reference(image),
        node_document_digest=hashlib.sha256(DOCUMENT).digest(),
        cluster_id=CLUSTER_ID if joined else None,
    )


def appraise(
    machine: Recorded, evidence: Evidence, policy: Policy | None = None, **changed: object
) -> object:
    verifier = registry.verifier(
        Variant.LOCAL_VTPM, policy=policy or rules(), trust_roots=(machine.ca.root,)
    )
    return verifier.appraise(evidence, **({"binding": BINDING, "now": NOW} | changed))  # type: ignore[arg-type]


def edited(evidence: Evidence, **fields: object) -> Evidence:
    document = decode.load(TpmEvidence, evidence.data, what="test", max_bytes=1 << 20)
    return replace(evidence, data=decode.dump(replace(document, **fields)))  # type: ignore[arg-type]


def opened(evidence: Evidence) -> TpmEvidence:
    return decode.load(TpmEvidence, evidence.data, what="test", max_bytes=1 << 20)


def test_a_fresh_machine_is_accepted_with_a_warning_and_its_identity(machine: Recorded) -> None:
    result = appraise(machine, machine.fresh)
    assert result.attester_id == machine.attester_id  # type: ignore[attr-defined]
    assert "for development" in result.warnings[0]  # type: ignore[attr-defined]
    assert any(line.startswith("tpm.firmware_version") for line in result.unchecked)  # type: ignore[attr-defined]


def test_a_machine_that_was_given_is_accepted_by_the_joined_policy_only(machine: Recorded) -> None:
    appraise(machine, machine.given, rules(joined=True))
    with pytest.raises(Rejected, match=r"pcr15: .*EV_EVENT_TAG"):
        appraise(machine, machine.given)
    with pytest.raises(Rejected, match=r"pcr15: .*no event extended it"):
        appraise(machine, machine.fresh, rules(joined=True))
