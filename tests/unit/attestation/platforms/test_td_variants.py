"""Variants whose registers are a TD's own: the whole procedure, and each way to fail it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.platforms import gcp_tdx, qemu_tdx, td, td_log
from constellation.attestation.policy import Exactly, Unchecked
from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.appraise import STRICT_STATUSES
from constellation.attestation.tpm.eventlog import Event, EventLog, EventType
from constellation.attestation.tpm.structures import Alg
from constellation.base import decode
from constellation.base.errors import FormatError, Rejected, Untrusted
from tests.fakes.intel import NOW, IntelWorld, td_report
from tests.fakes.td_guest import FakeTd
from tests.vectors import evidence

if TYPE_CHECKING:
    from constellation.attestation.tdx.endorsements import Collateral
    from constellation.attestation.tdx.quote import Quote

BINDING = Binding(hashlib.sha512(b"channel").digest())
DOCUMENT = hashlib.sha384(b"node document").digest()
CLUSTER = bytes(range(32))
LOGS = {n: i for n, i in evidence.items("tpm-eventlog").items() if n.startswith("ccel-")}


def event(register: int, kind: EventType, data: bytes, measured: bytes | None = None) -> Event:
    digest = hashlib.sha384(data if measured is None else measured).digest()
    return Event(pcr=register, type=kind, digests=((Alg.SHA384, digest),), data=data)


def log() -> EventLog:
    return EventLog.new(Alg.SHA384).appended(
        event(1, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, b"SecureBoot"),
        event(1, EventType.EV_SEPARATOR, bytes(4)),
        event(1, EventType.EV_SEPARATOR, bytes(4)),
        event(2, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"", b"kernel"),
        event(3, EventType.EV_IPL, b"command line", b"command line"),
    )


class World:
    """An Intel, one TD of a variant on it, and the policy that likes it."""

    def __init__(self, variant: Variant) -> None:
        self.variant, self.intel = variant, IntelWorld()
        self.log = log()
        self.measure()
        if variant is Variant.QEMU_TDX:
            self.set(mr_config_id=DOCUMENT)
        else:
            self.set(rtmr3=rtmr.extend(rtmr.ZERO, DOCUMENT))
        body = td_report()
        self.reference = {"mr_td": (body.mr_td,)} | {
            f"rtmr{n}": (value,) for n, value in enumerate(td_log.rtmrs(self.log)[:3])
        }
        self.cluster_id: bytes | None = None

    def set(self, **changed: Any) -> None:
        self.intel.body = replace(self.intel.body, **changed)

    def measure(self) -> None:
        values = td_log.rtmrs(self.log)
        self.set(rtmr0=values[0], rtmr1=values[1], rtmr2=values[2])

    async def evidence(self) -> Evidence:
        async def endorse(quote: Quote) -> Collateral:
            assert quote.body
            return self.intel.collateral()

        device = FakeTd(self.intel, self.log.pack().ljust(4096, b"\xff"))
        attester = td.TdAttester(variant=self.variant, device=device, endorse=endorse)
        return await attester.attest(BINDING)

    def verifier(self) -> qemu_tdx.QemuTdxVerifier | gcp_tdx.GcpTdxVerifier:
        common: dict[str, Any] = {
            "statuses": STRICT_STATUSES,
            "minimum_tcb_evaluation": 18,
            "node_document_digest": DOCUMENT,
            "cluster_id": self.cluster_id,
        }
        if self.variant is Variant.QEMU_TDX:
            rules = qemu_tdx.policy(self.reference, **common)
            return qemu_tdx.QemuTdxVerifier(policy=rules, trust_roots=self.intel.roots)
        image = {n: self.reference[n] for n in ("rtmr1", "rtmr2")}
        rules = gcp_tdx.policy(
            image,
            mr_td=Exactly(self.reference["mr_td"][0]),
            rtmr0=Unchecked("a machine type's"),
            **common,
        )
        return gcp_tdx.GcpTdxVerifier(policy=rules, trust_roots=self.intel.roots)

    async def appraise(self, **changed: Any) -> Any:
        arguments = {"binding": BINDING, "now": NOW} | changed
        return self.verifier().appraise(await self.evidence(), **arguments)


@pytest.fixture(params=[Variant.QEMU_TDX, Variant.GCP_TDX])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


async def test_a_node_with_which_nothing_is_wrong_is_accepted(world: World) -> None:
    result = await world.appraise()
    assert result.variant is world.variant
    assert len(result.attester_id) == 32
    assert "report_data: verified to be this channel's binding" in result.unchecked


async def test_a_node_that_was_given_to_the_cluster_is_told_from_one_that_was_not(
    world: World,
) -> None:
    world.cluster_id = CLUSTER
    with pytest.raises(Rejected, match="rtmr3"):
        await world.appraise()
    await FakeTd(world.intel, b"").extend_rtmr3(td.cluster_event(CLUSTER))
    assert await world.appraise()
    world.cluster_id = None
    with pytest.raises(Rejected, match="rtmr3"):
        await world.appraise()
    world.cluster_id = bytes(32)
    with pytest.raises(Rejected, match="rtmr3"):
        await world.appraise()


async def test_evidence_for_another_channel_is_refused(world: World) -> None:
    with pytest.raises(Untrusted, match="report data"):
        await world.appraise(binding=Binding(bytes(64)))


async def test_evidence_of_another_variant_is_refused(world: World) -> None:
    other = Variant.GCP_TDX if world.variant is Variant.QEMU_TDX else Variant.QEMU_TDX
    found = await world.evidence()
    with pytest.raises(Untrusted, match="expected"):
        world.verifier().appraise(
            Evidence(variant=other, data=found.data), binding=BINDING, now=NOW
        )


async def test_a_node_of_another_cluster_is_refused(world: World) -> None:
    if world.variant is Variant.QEMU_TDX:
        world.set(mr_config_id=b"\1" * 48)
    else:
        world.set(rtmr3=rtmr.extend(rtmr.ZERO, b"\1" * 48))
    with pytest.raises(Rejected, match=r"mr_config_id|rtmr3"):
        await world.appraise()


async def test_another_kernel_is_refused_and_named(world: World) -> None:
    extra = event(2, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"", b"other kernel")
    world.log = world.log.appended(extra)
    world.measure()
    with pytest.raises(Rejected, match=r"rtmr1: .* EV_EFI_BOOT_SERVICES_APPLICATION .* not expect"):
        await world.appraise()


async def test_a_log_that_tells_another_story_is_refused(world: World) -> None:
    world.log = world.log.appended(event(3, EventType.EV_IPL, b"more"))
    with pytest.raises(Untrusted, match="RTMR2 replays"):
        await world.appraise()


async def test_an_enclave_is_not_a_td(world: World) -> None:
    found = decode.load(td.TdEvidence, (await world.evidence()).data, what="e", max_bytes=1 << 20)
    enclave = IntelWorld()
    enclave.become_enclave()
    document = replace(found, quote=enclave.quote(BINDING), collateral=enclave.collateral().dump())
    world.intel = enclave
    offered = Evidence(variant=world.variant, data=decode.dump(document))
    with pytest.raises(Untrusted, match="SGX enclave"):
        world.verifier().appraise(offered, binding=BINDING, now=NOW)


async def test_a_debug_td_is_refused(world: World) -> None:
    world.set(td_attributes=td_report().td_attributes | 1)
    with pytest.raises(Rejected, match=r"td_attributes\.debug"):
        await world.appraise()


async def test_an_expired_statement_of_intel_is_refused(world: World) -> None:
    with pytest.raises(Untrusted, match="expired"):
        await world.appraise(now=NOW.replace(year=2028))


async def test_evidence_has_one_spelling(world: World) -> None:
    found = await world.evidence()
    spaced = Evidence(variant=world.variant, data=found.data.replace(b":", b": ", 1))
    with pytest.raises(FormatError, match="canonical"):
        world.verifier().appraise(spaced, binding=BINDING, now=NOW)


def test_reference_values_are_for_what_the_image_decides() -> None:
    with pytest.raises(FormatError, match="rtmr3"):
        td.image_rules({"rtmr3": (bytes(48),)})
    with pytest.raises(FormatError, match="48 bytes"):
        td.image_rules({"rtmr1": (bytes(32),)})


@pytest.mark.parametrize("name", LOGS)
def test_published_logs_replay_to_the_published_registers(name: str) -> None:
    item = LOGS[name]
    path = evidence.folder() / "tpm-eventlog" / item["files"][0]["file"]
    found = td_log.parse_log(path.read_bytes())
    assert found.pack() == path.read_bytes()
    wanted = item["expected"]["rtmr"]
    values = td_log.rtmrs(found)
    if wanted:
        assert [v.hex() for v in values] == [wanted[str(n)] for n in range(4)]
    td_log.verify_log(found, registers=dict(enumerate(values)))
    wrong = dict(enumerate(values)) | {0: values[0][:-1] + bytes([values[0][-1] ^ 2])}
    with pytest.raises(Untrusted, match="RTMR0 replays"):
        td_log.verify_log(found, registers=wrong)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ((event(1, EventType.EV_SEPARATOR, bytes(4)),) * 2, "more separators"),
        ((event(4, EventType.EV_SEPARATOR, bytes(4)),), "more separators"),
        ((event(2, EventType.EV_SEPARATOR, b"more"),), "separator 6d6f7265"),
        ((event(5, EventType.EV_IPL, b""),), "registers 1 to 4"),
        ((event(0, EventType.EV_IPL, b""),), "registers 1 to 4"),
        ((event(1, EventType.EV_EFI_ACTION, b"said", b"done"),), "does not hash"),
        ((replace(event(1, EventType.EV_EFI_ACTION, b""), digests=()),), "no SHA-384"),
    ],
)
def test_a_log_that_could_mislead_its_reader_is_refused(
    added: tuple[Event, ...], message: str
) -> None:
    with pytest.raises(Untrusted, match=message):
        td_log.verify_log(log().appended(*added), registers={})
