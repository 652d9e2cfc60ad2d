"""Per variant, what an attacker puts together: each refused, and for its own reason.

Two machines of one world: the same chip maker and cloud, so that nothing but the mix is wrong.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from constellation.atls.binding import channel_binding
from constellation.attestation.model import Binding, Variant
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tpm.public import Attribute
from constellation.base.errors import Rejected, Untrusted
from tests.fakes.clouds import BINDING, VARIANTS, Machine

QUOTED = tuple(v for v in VARIANTS if v not in (Variant.AWS_NITRO_TPM, Variant.AWS_SEV_SNP))
SNP = (Variant.AZURE_SEV_SNP, Variant.GCP_SEV_SNP, Variant.AWS_SEV_SNP)

OTHERS_PART: dict[Variant, tuple[str, str]] = {
    # which part is of the other machine, what is found
    Variant.AZURE_SEV_SNP: ("tpm", "AK: another key than the one that is vouched for"),
    Variant.AZURE_TDX: ("tpm", "AK: another key than the one that is vouched for"),
    Variant.AZURE_TRUSTEDLAUNCH: ("tpm", "AK: another key than the one that is vouched for"),
    Variant.GCP_SEV_SNP: ("report", "^report data .*, this channel and device have"),
    Variant.GCP_SEV_ES: ("tpm", "AK: another key than the one that is vouched for"),
    Variant.AWS_SEV_SNP: ("report", "^report data .*, this channel and device have"),
    Variant.AWS_NITRO_TPM: ("event_log", "event log: PCR 9 replays to"),
    Variant.QEMU_VTPM: ("tpm", "AK: another key than the one that is vouched for"),
}
OF_THE_CHANNEL: dict[Variant, str] = {
    **dict.fromkeys(VARIANTS, "quote: extraData"),
    Variant.GCP_SEV_SNP: "^report data .*, this channel",
    Variant.AWS_SEV_SNP: "Nitro document: nonce",
    Variant.AWS_NITRO_TPM: "Nitro document: nonce",
}


@functools.cache
def machine(variant: Variant, _copy: int = 1) -> Machine:
    return Machine.make(variant)


def bound(variant: Variant, /, **changed: Any) -> Binding:
    parts: dict[str, Any] = {
        "purpose": "join-client",
        "variant": variant,
        "exporter": b"e" * 32,
        "spki_digest": b"s" * 32,
        "peer_nonce": b"n" * 32,
    }
    return channel_binding(**(parts | changed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_part_of_another_machine_of_the_same_cloud_is_refused(variant: Variant) -> None:
    ours, theirs = machine(variant), machine(variant, 2)
    if variant is Variant.AWS_NITRO_TPM:
        theirs.tpm.measure(9, 13, b"another line")  # type: ignore[arg-type] # EV_IPL
    field, finding = OTHERS_PART[variant]
    mixed = ours.evidence(**{field: theirs.fields(BINDING)[field]})
    with pytest.raises(Untrusted, match=finding):
        ours.appraise(mixed)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "changed",
    [
        {"purpose": "join-server"},
        {"exporter": b"f" * 32},
        {"spki_digest": b"t" * 32},
        {"peer_nonce": b"m" * 32},
        {"variant": Variant.LOCAL_VTPM},
    ],
)
def test_evidence_for_another_purpose_channel_key_or_nonce_is_refused(
    variant: Variant, changed: dict[str, Any]
) -> None:
    ours = machine(variant)
    evidence = ours.evidence(bound(variant))
    assert ours.appraise(evidence, binding=bound(variant)).variant is variant
    with pytest.raises(Untrusted, match=OF_THE_CHANNEL[variant]):
        ours.appraise(evidence, binding=bound(variant, **changed))


@pytest.mark.parametrize("variant", QUOTED)
@pytest.mark.parametrize(
    "attribute",
    [Attribute.RESTRICTED, Attribute.FIXED_TPM, Attribute.SIGN_ENCRYPT,
     Attribute.SENSITIVE_DATA_ORIGIN],
)  # fmt: skip
def test_a_key_that_is_no_ak_is_refused_even_if_all_vouch_for_it(
    variant: Variant, attribute: Attribute
) -> None:
    ours = Machine.make(variant)
    ours.tpm.without = attribute
    with pytest.raises(Untrusted, match=f"AK: attributes .*{attribute.name}.* are missing"):
        ours.appraise()


@pytest.mark.parametrize("variant", QUOTED)
def test_what_no_tpm_made_is_no_quote(variant: Variant) -> None:
    ours = machine(variant)
    mine = ours.tpm.part(BINDING, magic=0)
    with pytest.raises(Untrusted, match="quote: magic 0x00000000, want 0xff544347"):
        ours.appraise(ours.evidence(tpm=mine))


@pytest.mark.parametrize("variant", SNP)
def test_a_missing_or_expired_revocation_list_has_its_own_finding(variant: Variant) -> None:
    ours = machine(variant)
    with pytest.raises(Rejected) as missing:
        ours.appraise(ours.evidence(crl=b""))
    said = {line.partition(":")[0] for line in missing.value.findings}
    assert said == {"crl.present", "crl.current"}
    if variant is Variant.AZURE_SEV_SNP:  # the others' cloud certificates end before
        with pytest.raises(Rejected) as expired:
            ours.appraise(now=ours.now + timedelta(days=60))
        assert [line.partition(":")[0] for line in expired.value.findings] == ["crl.current"]


@pytest.mark.parametrize("field", [n for n in Collateral.__slots__ if n != "pck_crl_issuer_chain"])
def test_each_missing_part_of_collateral_is_named(field: str) -> None:
    ours = machine(Variant.AZURE_TDX)
    whole = Collateral.parse(ours.fields(BINDING)["collateral"])
    without = replace(whole, **{field: b""}).dump()
    with pytest.raises(Untrusted, match=r"is missing|signature does not hold") as refused:
        ours.appraise(ours.evidence(collateral=without))
    part = field.replace("_signature", "").replace("_issuer_chain", "").replace("_", " ")
    named = {"root ca crl": "root CA CRL", "pck crl": "PCK CRL", "tcb info": "TCB",
             "qe identity": "QE identity|TCB signing"}[part]  # fmt: skip
    assert any(name in str(refused.value) for name in named.split("|"))


def test_expired_collateral_is_refused_as_such() -> None:
    ours = machine(Variant.AZURE_TDX)
    with pytest.raises(Untrusted, match="expired: valid until"):
        ours.appraise(now=ours.now + timedelta(days=60))
