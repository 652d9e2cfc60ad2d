"""The rules for a node of any variant, from what a release states and an owner demands."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from constellation.attestation import registry
from constellation.attestation.model import AttestationResult, Variant
from constellation.attestation.node_rules import (
    ChipMinimum,
    NodeIdentity,
    PlatformDemands,
    ReferenceValues,
    cluster_claim,
    is_given_to_cluster,
    node_policy,
)
from constellation.attestation.platforms import gcp_tdx, qemu_tdx
from constellation.attestation.policy import Exactly, OneOf, Policy
from constellation.attestation.snp import Line
from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.appraise import STRICT_STATUSES
from constellation.base.errors import FormatError, Rejected, Untrusted
from tests.fakes.amd import AmdWorld
from tests.fakes.clouds import DOCUMENT, MEASUREMENT, VARIANTS, Machine

FRESH = NodeIdentity(document=DOCUMENT, cluster_id=None)
CLUSTER = bytes(range(32))
WITH_CHIP = (
    Variant.AWS_SEV_SNP,
    Variant.AZURE_SEV_SNP,
    Variant.AZURE_TDX,
    Variant.GCP_SEV_SNP,
    Variant.GCP_SEV_ES,
)
DEMANDS = PlatformDemands(
    chips=(ChipMinimum(line=Line.MILAN, tcb=AmdWorld().chip().tcb),),
    chip_roots=AmdWorld(key_name="ark 1").roots,
    tdx_statuses=STRICT_STATUSES,
    minimum_tcb_evaluation=1,
    project_ids=("project",),
    csp_ids=("CN=cloud.example",),
)
REGISTERS = {0: (b"\x00" * 48,), 1: (b"\x01" * 48,), 2: (b"\x02" * 48,)}
TD = ReferenceValues(registers=REGISTERS, launch={"mr_td": (b"\x03" * 48,)})


def launch_of(machine: Machine) -> dict[str, tuple[bytes, ...]]:
    match machine.variant:
        case Variant.AZURE_TDX:
            rule = machine.verifier.policy["mr_td"]  # type: ignore[attr-defined]  # a fake world's
            assert isinstance(rule, OneOf)
            return {"mr_td": tuple(v for v in rule.values if isinstance(v, bytes))}
        case Variant.AWS_SEV_SNP | Variant.AZURE_SEV_SNP | Variant.GCP_SEV_SNP:
            return {"measurement": (MEASUREMENT,)}
        case _:
            return {}


def rules_of(
    machine: Machine,
    *,
    demands: PlatformDemands | None = DEMANDS,
    identity: NodeIdentity = FRESH,
) -> Policy:
    reference = ReferenceValues(registers=machine.tpm.reference(), launch=launch_of(machine))
    return node_policy(machine.variant, reference, demands=demands, identity=identity)


def judged(machine: Machine, rules: Policy) -> AttestationResult:
    verifier = registry.verifier(
        machine.variant,
        policy=rules,
        trust_roots=machine.verifier.trust_roots,  # type: ignore[attr-defined]  # a fake world's
        chip_roots=DEMANDS.chip_roots,
    )
    return dataclasses.replace(machine, verifier=verifier).appraise()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_rules_are_the_variants_own_and_its_machine_passes(variant: Variant) -> None:
    machine = Machine.make(variant)
    rules = rules_of(machine)
    assert rules == machine.verifier.policy  # type: ignore[attr-defined]  # a fake world's
    result = judged(machine, rules)
    assert not is_given_to_cluster(result, document=DOCUMENT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_clusters_document_or_a_node_that_was_given_away_is_refused(
    variant: Variant,
) -> None:
    machine = Machine.make(variant)
    with pytest.raises(Rejected, match=r"pcr8|PCR 8"):
        judged(machine, rules_of(machine, identity=dataclasses.replace(FRESH, document=b"other")))
    with pytest.raises(Rejected, match=r"pcr15|PCR 15"):
        judged(machine, rules_of(machine, identity=dataclasses.replace(FRESH, cluster_id=CLUSTER)))


@pytest.mark.parametrize("variant", WITH_CHIP)
def test_without_the_owners_demands_no_chip_or_project_is_accepted(variant: Variant) -> None:
    machine = Machine.make(variant)
    with pytest.raises(Rejected, match="demands nothing of the platform"):
        rules_of(machine, demands=None)
    empty = dataclasses.replace(
        DEMANDS, chips=(), tdx_statuses=(), project_ids=(), csp_ids=(), minimum_tcb_evaluation=1
    )
    with pytest.raises(Rejected):
        judged(machine, rules_of(machine, demands=empty))


@pytest.mark.parametrize("variant", [Variant.AWS_SEV_SNP, Variant.GCP_SEV_SNP])
def test_a_chip_of_other_roots_than_the_owner_demands_is_untrusted(variant: Variant) -> None:
    machine = Machine.make(variant)
    verifier = registry.verifier(
        variant,
        policy=rules_of(machine),
        trust_roots=machine.verifier.trust_roots,  # type: ignore[attr-defined]  # a fake world's
    )
    with pytest.raises(Untrusted, match=r"ARK|root"):
        dataclasses.replace(machine, verifier=verifier).appraise()


def test_a_paravisor_that_no_release_names_is_not_accepted() -> None:
    machine = Machine.make(Variant.AZURE_SEV_SNP)
    nothing = ReferenceValues(registers=machine.tpm.reference(), launch={})
    with pytest.raises(Rejected, match="which paravisor"):
        node_policy(machine.variant, nothing, demands=DEMANDS, identity=FRESH)
    with pytest.raises(FormatError, match="mr_td"):
        node_policy(machine.variant, TD, demands=DEMANDS, identity=FRESH)


def test_a_td_shows_document_and_cluster_in_its_own_registers() -> None:
    joined = dataclasses.replace(FRESH, cluster_id=CLUSTER)
    digest = hashlib.sha384(DOCUMENT).digest()
    images = {f"rtmr{n}": values for n, values in REGISTERS.items()}
    assert node_policy(Variant.QEMU_TDX, TD, demands=DEMANDS, identity=joined) == qemu_tdx.policy(
        {**images, "mr_td": TD.launch["mr_td"]},
        statuses=STRICT_STATUSES,
        minimum_tcb_evaluation=1,
        node_document_digest=digest,
        cluster_id=CLUSTER,
    )
    del images["rtmr0"]
    assert node_policy(Variant.GCP_TDX, TD, demands=DEMANDS, identity=joined) == gcp_tdx.policy(
        images,
        mr_td=OneOf(TD.launch["mr_td"]),
        rtmr0=OneOf(REGISTERS[0]),
        statuses=STRICT_STATUSES,
        minimum_tcb_evaluation=1,
        node_document_digest=digest,
        cluster_id=CLUSTER,
    )


def td_result(variant: Variant, **claims: bytes) -> AttestationResult:
    return AttestationResult(
        variant=variant, attester_id=bytes(32), claims=claims, unchecked=(), warnings=()
    )


def test_whether_a_td_was_given_away_is_read_from_rtmr3() -> None:
    digest = hashlib.sha384(DOCUMENT).digest()
    cluster = hashlib.sha384(CLUSTER).digest()
    values = {
        Variant.QEMU_TDX: (rtmr.ZERO, rtmr.predict((cluster,))),
        Variant.GCP_TDX: (rtmr.predict((digest,)), rtmr.predict((digest, cluster))),
    }
    for variant, (fresh, given) in values.items():
        assert not is_given_to_cluster(td_result(variant, rtmr3=fresh), document=DOCUMENT)
        assert is_given_to_cluster(td_result(variant, rtmr3=given), document=DOCUMENT)
        with pytest.raises(Rejected, match="rtmr3: found nothing"):
            is_given_to_cluster(td_result(variant, pcr15=bytes(32)), document=DOCUMENT)


def test_a_variant_without_a_register_for_it_never_shows_that_it_joined() -> None:
    machine = ReferenceValues(registers={}, launch={"measurement": (MEASUREMENT,)})
    variant = Variant.QEMU_SEV_SNP
    rules = node_policy(variant, machine, demands=DEMANDS, identity=FRESH)
    assert rules["host_data"] == Exactly(hashlib.sha256(DOCUMENT).digest())
    joined = dataclasses.replace(FRESH, cluster_id=CLUSTER)
    with pytest.raises(Rejected, match="no register"):
        node_policy(variant, machine, demands=DEMANDS, identity=joined)
    with pytest.raises(Rejected, match="no register"):
        cluster_claim(variant)


def test_every_variant_has_rules() -> None:
    for variant in Variant:
        reference = ReferenceValues(registers={}, launch={"measurement": (MEASUREMENT,)})
        if variant is not Variant.AZURE_SEV_SNP:
            reference = ReferenceValues(registers={}, launch={})
        assert node_policy(variant, reference, demands=DEMANDS, identity=FRESH)
