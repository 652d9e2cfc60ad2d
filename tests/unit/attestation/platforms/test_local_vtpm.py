"""The whole local-vtpm procedure on a real swtpm."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation import registry
from constellation.attestation.model import AttestationResult, Binding, Evidence, Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import BANK, TpmEvidence, check
from constellation.attestation.policy import Exactly, OneOf, Policy, Rule, Unchecked
from constellation.attestation.tpm import pcr, replay
from constellation.attestation.tpm.device import AK_TEMPLATE, Tpm
from constellation.attestation.tpm.eventlog import Event, EventLog, EventType
from constellation.attestation.tpm.public import Attribute, Public
from constellation.attestation.tpm.structures import Alg, Attest, EcdsaSignature
from constellation.base import decode
from constellation.base.errors import (
    Conflict,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)
from constellation.crypto.x509 import generate_key, spki
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

APPLICATION = "EV_EFI_BOOT_SERVICES_APPLICATION"
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
) -> AttestationResult:
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
    assert result.attester_id == machine.attester_id
    assert "for development" in result.warnings[0]
    assert any(line.startswith("tpm.firmware_version") for line in result.unchecked)


def test_a_machine_that_was_given_is_accepted_by_the_joined_policy_only(machine: Recorded) -> None:
    appraise(machine, machine.given, rules(joined=True))
    with pytest.raises(Rejected, match=r"pcr15: .*EV_EVENT_TAG"):
        appraise(machine, machine.given)
    with pytest.raises(Rejected, match=r"pcr15: .*no event extended it"):
        appraise(machine, machine.fresh, rules(joined=True))


def test_one_changed_bit_of_the_image_is_refused_and_explained_by_its_event(
    machine: Recorded,
) -> None:
    other = hashlib.sha256(b"node imagf").digest()
    with pytest.raises(Rejected) as refused:
        appraise(machine, machine.fresh, rules(image=other))
    wanted, found = reference(other)[4][0].hex(), reference()[4][0].hex()
    assert refused.value.findings == (
        f"pcr4: expected {wanted}, found {found}: event {APPLICATION} ({IMAGE.hex()})",
    )


def test_another_clusters_document_is_refused_by_register_and_event(machine: Recorded) -> None:
    policy = local_vtpm.policy(
        reference(), node_document_digest=hashlib.sha256(b"other").digest(), cluster_id=None
    )
    with pytest.raises(Rejected, match=r"pcr8: expected .*event EV_EVENT_TAG"):
        appraise(machine, machine.fresh, policy)


def test_every_finding_is_reported_not_only_the_first(machine: Recorded) -> None:
    policy = local_vtpm.policy({}, node_document_digest=b"\0" * 32, cluster_id=CLUSTER_ID)
    with pytest.raises(Rejected) as refused:
        appraise(machine, machine.fresh, policy)
    names = {finding.partition(":")[0] for finding in refused.value.findings}
    assert names == {"pcr0", "pcr4", "pcr7", "pcr8", "pcr9", "pcr11", "pcr15"}


def test_a_claim_without_a_rule_is_a_finding(machine: Recorded) -> None:
    policy = {name: rule for name, rule in rules().items() if name != "pcr12"}
    with pytest.raises(Rejected, match="pcr12: no rule"):
        appraise(machine, machine.fresh, policy)


def test_reference_values_for_other_registers_are_no_policy() -> None:
    with pytest.raises(FormatError, match="PCR 8"):
        local_vtpm.policy({8: (b"\0" * 32,)}, node_document_digest=b"\0" * 32, cluster_id=None)
    with pytest.raises(FormatError, match="PCR 12"):
        local_vtpm.policy({12: (b"\1" * 32,)}, node_document_digest=b"\0" * 32, cluster_id=None)


def test_evidence_for_another_binding_is_not_authentic(machine: Recorded) -> None:
    with pytest.raises(Untrusted, match="extraData"):
        appraise(machine, machine.fresh, binding=Binding(b"\0" * 64))


def test_evidence_of_another_variant_is_not_authentic(machine: Recorded) -> None:
    with pytest.raises(Untrusted, match="variant"):
        appraise(machine, replace(machine.fresh, variant=Variant.QEMU_VTPM))


def test_an_ak_of_another_cloud_is_not_authentic(machine: Recorded) -> None:
    verifier = local_vtpm.LocalVtpmVerifier(policy=rules(), trust_roots=(LocalCloudCa().root,))
    with pytest.raises(Untrusted, match="none of the given authorities"):
        verifier.appraise(machine.fresh, binding=BINDING, now=NOW)
    nobody = local_vtpm.LocalVtpmVerifier(policy=rules(), trust_roots=())
    with pytest.raises(Untrusted, match="none of the given authorities"):
        nobody.appraise(machine.fresh, binding=BINDING, now=NOW)


@pytest.mark.parametrize("days", [-1, 31, 400])
def test_an_ak_certificate_counts_only_within_its_time(machine: Recorded, days: int) -> None:
    with pytest.raises(Untrusted, match="valid from"):
        appraise(machine, machine.fresh, now=NOW + timedelta(days=days))


def test_the_authority_itself_is_no_ak(machine: Recorded) -> None:
    with pytest.raises(Untrusted, match="authority's own"):
        appraise(machine, edited(machine.fresh, ak_certificate=machine.ca.root))


def test_the_certificate_of_another_key_is_not_authentic(machine: Recorded) -> None:
    other = generate_key().public_key()
    certificate = machine.ca.certify(spki(other))
    with pytest.raises(Untrusted, match="another key"):
        appraise(machine, edited(machine.fresh, ak_certificate=certificate))


def test_an_ak_with_other_attributes_is_not_authentic(machine: Recorded) -> None:
    public = Public.parse(opened(machine.fresh).ak_public)
    for attributes in (
        public.object_attributes & ~Attribute.RESTRICTED,
        public.object_attributes ^ Attribute.NO_DA,
    ):
        changed = replace(public, object_attributes=attributes).pack()
        with pytest.raises(Untrusted, match="template"):
            appraise(machine, edited(machine.fresh, ak_public=changed))


def test_a_log_with_an_event_left_out_does_not_replay(machine: Recorded) -> None:
    log = EventLog.parse(opened(machine.fresh).event_log)
    for index in range(len(log.events)):
        events = log.events[:index] + log.events[index + 1 :]
        changed = edited(machine.fresh, event_log=replace(log, events=events).pack())
        with pytest.raises(Untrusted, match=r"replays to|are not quoted"):
            appraise(machine, changed)


def test_every_flipped_bit_of_the_log_is_refused(machine: Recorded) -> None:
    document = opened(machine.given)
    for bit in range(8 * len(document.event_log)):
        changed = bytearray(document.event_log)
        changed[bit // 8] ^= 1 << (bit % 8)
        try:
            log = EventLog.parse(bytes(changed))
            check(log)
            replay.verify(log, bank=BANK, pcrs=document.pcrs)
        except (FormatError, Untrusted):
            continue
        raise AssertionError(f"bit {bit} may be flipped")


def test_a_log_whose_event_has_another_type_is_not_authentic(machine: Recorded) -> None:
    log = EventLog.parse(opened(machine.fresh).event_log)
    app = next(i for i, e in enumerate(log.events) if e.pcr == 4 and e.type != 4)
    event = replace(log.events[app], type=EventType.EV_IPL)
    events = (*log.events[:app], event, *log.events[app + 1 :])
    with pytest.raises(Untrusted, match="not one of a local machine"):
        appraise(machine, edited(machine.fresh, event_log=replace(log, events=events).pack()))


def test_evidence_has_one_spelling_only(machine: Recorded) -> None:
    with pytest.raises(FormatError, match="canonical"):
        appraise(machine, replace(machine.fresh, data=machine.fresh.data + b"\n"))


# a flipped sign of a serial number is worth a warning to the library
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.data())
@settings(max_examples=400, deadline=None)
def test_any_flipped_bit_of_the_evidence_is_refused_as_not_authentic(
    machine: Recorded, data: st.DataObject
) -> None:
    # fields rather than JSON text: most flips of base64 are no base64
    document = opened(machine.given)
    name = data.draw(
        st.sampled_from(["quote", "signature", "ak_public", "ak_certificate", "event_log"])
    )
    value: bytes = getattr(document, name)
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises((Untrusted, FormatError)):
        appraise(machine, edited(machine.given, **{name: bytes(changed)}), rules(joined=True))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_other_register_value_is_refused_as_not_authentic(
    machine: Recorded, data: st.DataObject
) -> None:
    pcrs = opened(machine.given).pcrs
    number = data.draw(st.sampled_from(sorted(pcrs)))
    value = data.draw(st.binary(min_size=32, max_size=32).filter(lambda v: v != pcrs[number]))
    with pytest.raises(Untrusted, match="pcrDigest"):
        appraise(machine, edited(machine.given, pcrs=pcrs | {number: value}), rules(joined=True))


@given(st.integers(0, 1 << 20), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_any_flipped_bit_of_the_document_is_refused(
    machine: Recorded, index: int, bit: int
) -> None:
    data = bytearray(machine.given.data)
    data[index % len(data)] ^= 1 << bit
    with pytest.raises((Untrusted, FormatError)):
        appraise(machine, replace(machine.given, data=bytes(data)), rules(joined=True))


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_junk_is_a_format_error_and_nothing_else(machine: Recorded, junk: bytes) -> None:
    with pytest.raises(FormatError):
        appraise(machine, replace(machine.fresh, data=junk))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_tightening_a_policy_never_accepts_more(machine: Recorded, data: st.DataObject) -> None:
    policy = dict(rules(joined=data.draw(st.booleans())))
    for name in data.draw(st.lists(st.sampled_from(sorted(policy)), max_size=4)):
        policy[name] = data.draw(st.sampled_from([*loosenings(policy[name])]))
    name = data.draw(st.sampled_from(sorted(policy)))
    tighter = policy | {name: data.draw(st.sampled_from([*tightenings(policy[name])]))}
    evidence = data.draw(st.sampled_from([machine.fresh, machine.given]))
    try:
        appraise(machine, evidence, policy)
    except Rejected:
        with pytest.raises(Rejected):
            appraise(machine, evidence, tighter)


def loosenings(rule: Rule) -> tuple[Rule, ...]:
    match rule:
        case Exactly(value):
            return (rule, OneOf((value, b"\0" * 32)), Unchecked("a test"))
        case OneOf(values):
            return (rule, OneOf((*values, b"\1" * 32)), Unchecked("a test"))
        case _:
            return (rule,)


def tightenings(rule: Rule) -> tuple[Rule, ...]:
    match rule:
        case Exactly():
            return (rule, OneOf(()))
        case OneOf(values):
            return (rule, OneOf(values[1:]), *(Exactly(v) for v in values))
        case _:
            return (rule, Exactly(0), OneOf((b"\0" * 32,)))


async def test_manufacturing_again_leaves_a_machine_as_it_is() -> None:
    with tempfile.TemporaryDirectory(prefix="vtpm") as name:
        ca, made = LocalCloudCa(), []
        for _ in range(2):
            async with swtpm(Path(name)) as socket, await Tpm.connect(socket) as tpm:
                await local_vtpm.manufacture(tpm, ca.certify)
                made.append((await tpm.read_public(0x81000003), await tpm.nv_read(0x01C101D0)))
    assert made[0] == made[1]


async def test_a_tpm_that_was_not_manufactured_attests_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="vtpm") as name:
        async with swtpm(Path(name)) as socket, await Tpm.connect(socket) as tpm:
            attester = local_vtpm.LocalVtpmAttester(tpm, Path(name) / "log")
            with pytest.raises(Unavailable, match="no AK"):
                await attester.attest(BINDING)


async def test_the_document_is_measured_once_a_boot() -> None:
    with tempfile.TemporaryDirectory(prefix="vtpm") as name:
        folder = Path(name)
        async with swtpm(folder) as socket:
            await power_on(socket, folder)
            with pytest.raises(Conflict, match="PCR 8"):
                await power_on(socket, folder)
        async with swtpm(folder) as socket:  # the next boot
            await power_on(socket, folder)


async def test_an_event_that_nobody_expects_is_refused_and_named() -> None:
    with tempfile.TemporaryDirectory(prefix="vtpm") as name:
        folder, ca = Path(name), LocalCloudCa()
        async with swtpm(folder) as socket:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.manufacture(tpm, ca.certify)
            await power_on(socket, folder)
            async with await Tpm.connect(socket) as tpm:
                data = b"an addon"
                digest = hashlib.sha256(data).digest()
                await tpm.extend(12, digest)
                event = Event(pcr=12, type=EventType.EV_IPL, digests=((BANK, digest),), data=data)
                log = EventLog.parse((folder / "log").read_bytes()).appended(event)
                (folder / "log").write_bytes(log.pack())
                attester = local_vtpm.LocalVtpmAttester(tpm, folder / "log")
                evidence = await attester.attest(BINDING)
        verifier = local_vtpm.LocalVtpmVerifier(policy=rules(), trust_roots=(ca.root,))
        with pytest.raises(Rejected, match=r"pcr12: .*EV_IPL 'an addon' .* was not expected"):
            verifier.appraise(evidence, binding=BINDING, now=NOW)


async def test_registers_and_log_are_kept_while_quotes_are_over_them_and_no_longer() -> None:
    with tempfile.TemporaryDirectory(prefix="vtpm") as name:
        folder, ca = Path(name), LocalCloudCa()
        kept, away = folder / "log", folder / "away"
        async with swtpm(folder) as socket:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.manufacture(tpm, ca.certify)
            await power_on(socket, folder)
            async with await Tpm.connect(socket) as tpm:
                attester = local_vtpm.LocalVtpmAttester(tpm, kept)
                first = opened(await attester.attest(BINDING))
                kept.rename(away)
                second = opened(await attester.attest(Binding(b"other".ljust(64))))
                assert (second.pcrs, second.event_log) == (first.pcrs, first.event_log)
                assert second.quote != first.quote
                await tpm.extend(15, bytes(32))
                with pytest.raises(Unavailable, match="event log"):
                    await attester.attest(BINDING)


async def test_a_log_that_does_not_have_every_event_is_read_anew() -> None:
    with tempfile.TemporaryDirectory(prefix="vtpm") as name:
        folder, ca = Path(name), LocalCloudCa()
        async with swtpm(folder) as socket:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.manufacture(tpm, ca.certify)
            await power_on(socket, folder)
            async with await Tpm.connect(socket) as tpm:
                attester = local_vtpm.LocalVtpmAttester(tpm, folder / "log")
                before = (folder / "log").read_bytes()
                await local_vtpm.give_to_cluster(tpm, CLUSTER_ID, event_log=folder / "log")
                after = (folder / "log").read_bytes()
                for written in (before, b"no log", after):  # the first two: not written yet
                    (folder / "log").write_bytes(written)
                    assert opened(await attester.attest(BINDING)).event_log == written


def test_predictions_are_what_the_machine_measured(machine: Recorded) -> None:
    pcrs = opened(machine.fresh).pcrs
    assert {n: (pcrs[n],) for n in reference()} == reference()
    zero = pcr.initial(BANK, 15)
    given_pcrs = opened(machine.given).pcrs
    assert given_pcrs[15] == hashlib.sha256(zero + hashlib.sha256(CLUSTER_ID).digest()).digest()
    assert pcrs[8] == hashlib.sha256(zero + hashlib.sha256(DOCUMENT).digest()).digest()


@pytest.mark.parametrize("variant", Variant)
def test_every_variant_has_a_verifier(variant: Variant) -> None:
    assert registry.verifier(variant, policy={}, trust_roots=()) is not None


def forged(machine: Recorded, **changed: object) -> Evidence:
    """Make evidence with a certified key outside any TPM, which may sign whatever it likes."""
    key, document = generate_key(), opened(machine.fresh)
    numbers = key.public_key().public_numbers()
    point = replace(AK_TEMPLATE.key, x=numbers.x.to_bytes(32), y=numbers.y.to_bytes(32))  # type: ignore[type-var]
    public = replace(AK_TEMPLATE, key=point)  # type: ignore[arg-type]
    name = hashlib.sha256(bytes.fromhex("4000000b") + public.name()).digest()
    genuine = replace(Attest.parse(document.quote), qualified_signer=b"\0\x0b" + name)
    message = replace(genuine, **changed).pack()  # type: ignore[arg-type]
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    signature = EcdsaSignature(
        hash=Alg.SHA256, signature_r=r.to_bytes(32), signature_s=s.to_bytes(32)
    )
    return edited(
        machine.fresh,
        quote=message,
        signature=signature.pack(),
        ak_public=public.pack(),
        ak_certificate=machine.ca.certify(spki(key.public_key())),
    )


def test_the_name_of_the_ak_in_its_quote_counts(machine: Recorded) -> None:
    appraise(machine, forged(machine))  # whoever certifies such a key has trusted it
    with pytest.raises(Untrusted, match="qualifiedSigner"):
        appraise(machine, forged(machine, qualified_signer=b"\0\x0b" + b"\1" * 32))


def test_a_signed_statement_that_no_tpm_made_is_no_quote(machine: Recorded) -> None:
    with pytest.raises(Untrusted, match="magic"):
        appraise(machine, forged(machine, magic=0xFF544348))
