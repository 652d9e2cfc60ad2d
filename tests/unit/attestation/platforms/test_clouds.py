"""Every cloud's variant in its made-up world: one machine accepted, each broken thing refused."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation import registry
from constellation.attestation.model import Binding, Evidence, Variant
from constellation.attestation.tpm import pcr
from constellation.attestation.tpm.eventlog import EventType
from constellation.attestation.tpm.public import Attribute
from constellation.base.errors import ConstellationError, FormatError, Rejected, Untrusted
from tests.fakes import azure
from tests.fakes.clouds import BINDING, VARIANTS, Machine
from tests.fakes.vtpm import SoftTpm

CONFIDENTIAL = (
    *(Variant.AZURE_SEV_SNP, Variant.AZURE_TDX),
    *(Variant.GCP_SEV_SNP, Variant.AWS_SEV_SNP),
)
SNP = (Variant.AZURE_SEV_SNP, Variant.GCP_SEV_SNP, Variant.AWS_SEV_SNP)
QUOTED = tuple(v for v in VARIANTS if v not in (Variant.AWS_NITRO_TPM, Variant.AWS_SEV_SNP))


@functools.cache
def machine(variant: Variant, number: int = 1) -> Machine:
    return Machine.make(variant, number)


@functools.cache
def attested(variant: Variant) -> dict[str, Any]:
    return machine(variant).fields(BINDING)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_genuine_machine_is_accepted_and_every_unchecked_claim_has_a_reason(
    variant: Variant,
) -> None:
    result = machine(variant).appraise()
    assert result.variant is variant
    assert len(result.attester_id) == 32
    assert all(line.partition(": ")[2] for line in result.unchecked)
    assert bool(result.warnings) == (variant not in CONFIDENTIAL)
    again = machine(variant).appraise()
    assert again.attester_id == result.attester_id


@pytest.mark.parametrize("variant", VARIANTS)
def test_evidence_for_another_channel_is_refused(variant: Variant) -> None:
    evidence = machine(variant).evidence(Binding(b"c" * 64))
    with pytest.raises(Untrusted, match=r"extraData|nonce|report data"):
        machine(variant).appraise(evidence)


@pytest.mark.parametrize("variant", VARIANTS)
def test_evidence_of_another_variant_is_refused(variant: Variant) -> None:
    ours = machine(variant).evidence()
    for other in VARIANTS:
        if other is variant:
            continue
        theirs = machine(other).evidence()
        with pytest.raises(Untrusted, match="evidence of variant"):
            machine(variant).appraise(theirs)
        with pytest.raises((FormatError, Untrusted)):
            machine(variant).appraise(replace(theirs, variant=variant))
        with pytest.raises((FormatError, Untrusted)):
            machine(other).appraise(replace(ours, variant=other))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_machines_parts_do_not_serve_another(variant: Variant) -> None:
    ours, theirs = machine(variant), machine(variant, 2)
    mine, yours = ours.fields(BINDING), theirs.fields(BINDING)
    for field in mine:
        if mine[field] != yours[field]:
            with pytest.raises((Untrusted, FormatError)):
                ours.appraise(ours.evidence(**{field: yours[field]}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_missing_part_is_refused(variant: Variant) -> None:
    ours = machine(variant)
    for field, value in ours.fields(BINDING).items():
        if isinstance(value, bytes) and field not in ("ask", "asvk"):
            with pytest.raises((Untrusted, FormatError, Rejected)):
                ours.appraise(ours.evidence(**{field: b""}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_root_or_time_is_refused(variant: Variant) -> None:
    ours, theirs = machine(variant), machine(variant, 2)
    roots = getattr(theirs.verifier, "trust_roots")  # noqa: B009 - of every verifier here
    if roots != getattr(ours.verifier, "trust_roots"):  # noqa: B009
        changed: Any = replace(ours.verifier, trust_roots=roots)  # type: ignore[type-var]
        with pytest.raises(Untrusted):
            replace(ours, verifier=changed).appraise()
    none: Any = replace(ours.verifier, trust_roots=())  # type: ignore[type-var]
    with pytest.raises(Untrusted):
        replace(ours, verifier=none).appraise()
    for days in (-4000, 9000):
        with pytest.raises(Untrusted):
            ours.appraise(now=ours.now + timedelta(days=days))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_changed_image_is_refused_and_explained_by_its_event(variant: Variant) -> None:
    changed = Machine.make(variant)
    changed.tpm.measure(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"more")
    changed.tpm.measure(15, EventType.EV_IPL, b"cluster")
    with pytest.raises(Rejected) as refused:
        changed.appraise()
    findings = refused.value.findings
    assert any(f.startswith("pcr4: ") and "EV_EFI_BOOT_SERVICES" in f for f in findings)
    assert any(f.startswith("pcr15: ") for f in findings)


@pytest.mark.parametrize("variant", QUOTED)
def test_an_ak_that_signs_other_things_is_refused(variant: Variant) -> None:
    ours = machine(variant)
    part = ours.tpm.part(BINDING)
    public = ours.tpm.public
    for attribute in (Attribute.RESTRICTED, Attribute.FIXED_TPM):
        weak = replace(public, object_attributes=public.object_attributes & ~attribute)
        tpm = replace(part, ak_public=weak.pack())
        fields: dict[str, Any] = {"tpm": tpm}
        if variant is Variant.GCP_SEV_SNP:
            continue  # the report's data names the public area: see below
        with pytest.raises(Untrusted, match="are missing"):
            ours.appraise(ours.evidence(**fields))


def test_on_gcp_the_chip_names_the_public_area_of_the_ak() -> None:
    ours = machine(Variant.GCP_SEV_SNP)
    public = ours.tpm.public
    weak = replace(public, object_attributes=public.object_attributes & ~Attribute.RESTRICTED)
    part = replace(ours.tpm.part(BINDING), ak_public=weak.pack())
    with pytest.raises(Untrusted, match="report data"):
        ours.appraise(ours.evidence(tpm=part))


@pytest.mark.parametrize("variant", QUOTED)
def test_a_quote_without_tpm_generated_or_with_other_registers_is_refused(variant: Variant) -> None:
    ours = machine(variant)
    with pytest.raises(Untrusted, match="magic"):
        ours.appraise(ours.evidence(tpm=ours.tpm.part(BINDING, magic=0x12345678)))
    with pytest.raises(Untrusted, match="expected 0 to 15"):
        ours.appraise(ours.evidence(tpm=ours.tpm.part(BINDING, pcrs=(4, 9, 11))))


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_imas_register_may_be_extended_by_what_no_firmwares_log_has(variant: Variant) -> None:
    for number in range(16):
        ours = Machine.make(variant)
        ours.tpm.pcrs[number] = pcr.extend(ours.tpm.bank, ours.tpm.pcrs[number], ours.tpm.pcrs[0])
        if number == 10:
            ours.appraise()
            continue
        with pytest.raises(Untrusted, match=f"PCR {number} replays to"):
            ours.appraise()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_log_that_does_not_replay_is_refused(variant: Variant) -> None:
    ours = machine(variant)
    other = SoftTpm(bank=ours.tpm.bank)
    other.measure(9, EventType.EV_IPL, b"another line")
    mine = ours.fields(BINDING)
    if "tpm" in mine:
        changed = {"tpm": replace(mine["tpm"], event_log=other.log.pack())}
    else:
        changed = {"event_log": other.log.pack()}
    with pytest.raises(Untrusted, match="replays to"):
        ours.appraise(ours.evidence(**changed) if "tpm" in changed else _same(ours, mine, changed))


def _same(ours: Machine, mine: dict[str, Any], changed: dict[str, Any]) -> Evidence:
    return ours.evidence(**(mine | changed))


@pytest.mark.parametrize("variant", SNP)
def test_a_missing_or_old_revocation_list_is_a_finding(variant: Variant) -> None:
    ours = machine(variant)
    with pytest.raises(Rejected, match=r"crl\.present: found 0"):
        ours.appraise(ours.evidence(crl=b""))
    if variant is Variant.AZURE_SEV_SNP:
        with pytest.raises(Rejected, match=r"crl\.current: found 0"):
            ours.appraise(now=ours.now + timedelta(days=60))


def test_evidence_not_in_canonical_form_is_refused() -> None:
    for variant in VARIANTS:
        evidence = machine(variant).evidence()
        with pytest.raises(FormatError, match="canonical"):
            machine(variant).appraise(replace(evidence, data=evidence.data + b"\n"))


def test_an_hcl_report_of_the_other_chip_is_refused() -> None:
    snp, tdx = machine(Variant.AZURE_SEV_SNP), machine(Variant.AZURE_TDX)
    theirs = tdx.fields(BINDING)["hcl_report"]
    with pytest.raises(Untrusted, match="of TDX, expected SNP"):
        snp.appraise(snp.evidence(hcl_report=theirs))
    mine = snp.fields(BINDING)["hcl_report"]
    with pytest.raises((Untrusted, FormatError), match="of SNP, expected TDX"):
        tdx.appraise(tdx.evidence(hcl_report=mine))


def test_runtime_data_with_another_ak_is_not_what_the_chip_signed() -> None:
    ours, rogue = machine(Variant.AZURE_SEV_SNP), SoftTpm(rsa_ak=True)
    chip_report = ours.fields(BINDING)["hcl_report"][32:1216]
    forged = azure.hcl_report(chip_report, azure.runtime_data(rogue.public_key))
    with pytest.raises(Untrusted, match="the runtime data has"):
        ours.appraise(ours.evidence(hcl_report=forged, tpm=rogue.part(BINDING)))


def test_a_certificate_that_is_not_for_an_ak_is_refused() -> None:
    ours, ca = machine(Variant.AZURE_TRUSTEDLAUNCH), azure.MicrosoftCa(machine(VARIANTS[0]).now)
    changed: Any = replace(ours.verifier, trust_roots=(ca.root.der,))  # type: ignore[type-var]
    judged = replace(ours, verifier=changed)
    for purposes in ((), ("1.3.6.1.5.5.7.3.2",)):
        certificate = ca.certify(ours.tpm.public_key, purposes=purposes)
        evidence = ours.evidence(ak_certificate=certificate, ak_chain=(ca.signer.der,))
        with pytest.raises(Untrusted, match=r"not for an AK|2\.5\.29\.37 is missing"):
            judged.appraise(evidence)
    good = ca.certify(ours.tpm.public_key)
    for padding in (b"", bytes(100)):
        judged.appraise(ours.evidence(ak_certificate=good + padding, ak_chain=(ca.signer.der,)))
    with pytest.raises(FormatError, match="no zeros"):
        judged.appraise(ours.evidence(ak_certificate=good + b"\0\1", ak_chain=(ca.signer.der,)))


def test_gces_firmware_must_name_the_technology() -> None:
    plain = Machine.make(Variant.GCP_SEV_ES)
    plain.tpm.measure(0, EventType.EV_NONHOST_INFO, b"GCE NonHostInfo\0" + bytes(16))
    with pytest.raises(Untrusted, match="2 GCE NonHostInfo events"):
        plain.appraise()
    none = Machine.make(Variant.GCP_SEV_ES)
    none.tpm.boot()
    with pytest.raises(Untrusted, match="0 GCE NonHostInfo events"):
        none.appraise()
    for data, error in ((b"\x09" + bytes(15), FormatError), (b"\1\1" + bytes(14), FormatError)):
        none.tpm.boot()
        none.tpm.measure(0, EventType.EV_NONHOST_INFO, b"GCE NonHostInfo\0" + data)
        with pytest.raises(error, match="GCE NonHostInfo"):
            none.appraise()
    none.tpm.boot()
    none.tpm.measure(0, EventType.EV_NONHOST_INFO, b"GCE NonHostInfo\0" + bytes(16))
    with pytest.raises(Rejected, match=r"gce\.technology: found 0"):
        none.appraise()


def test_every_variant_with_a_verifier_is_in_the_registry() -> None:
    for variant in VARIANTS:
        made = registry.verifier(variant, policy={}, trust_roots=registry.published_roots(variant))
        assert type(made) is type(machine(variant).verifier)


@pytest.mark.parametrize("variant", VARIANTS)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_flipped_bit_of_evidence_is_refused(variant: Variant, data: st.DataObject) -> None:
    ours = machine(variant)
    fields = attested(variant)
    # logs, collateral and a TDREPORT have bytes that nothing is decided by
    unsigned = ("event_log", "collateral", "hcl_report" if variant is Variant.AZURE_TDX else "")
    signed = sorted(f for f, v in fields.items() if isinstance(v, bytes) and f not in unsigned)
    tpm_fields = ("quote", "signature") if "tpm" in fields else ()
    name = data.draw(st.sampled_from([*signed, *tpm_fields]))
    raw = bytearray(getattr(fields["tpm"], name) if name in tpm_fields else fields[name])
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    changed = {name: bytes(raw)}
    if name in tpm_fields:
        changed = {"tpm": replace(fields["tpm"], **changed)}
    with pytest.raises(ConstellationError):
        ours.appraise(ours.evidence(**(fields | changed)))


@pytest.mark.parametrize("variant", QUOTED)
def test_a_machine_cannot_change_its_identity_by_showing_its_ak_otherwise(variant: Variant) -> None:
    ours = machine(variant)
    public = ours.tpm.public
    shown = replace(public, object_attributes=public.object_attributes ^ Attribute.NO_DA)
    part = replace(ours.tpm.part(BINDING), ak_public=shown.pack())
    try:
        result = ours.appraise(ours.evidence(tpm=part))
    except Untrusted:
        assert variant is Variant.GCP_SEV_SNP  # its chip names the whole public area
        return
    assert result.attester_id == ours.appraise().attester_id
