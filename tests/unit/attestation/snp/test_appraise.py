"""Policies: a rule for every claim, all findings at once, tighter never accepts more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.policy import (
    AtLeast,
    Exactly,
    OneOf,
    Policy,
    Rule,
    Unchecked,
    describe,
    findings,
)
from constellation.attestation.snp import (
    Endorsements,
    Line,
    Product,
    SigningKey,
    appraise,
    claims,
    default_policy,
    parse_report,
    relevant,
    verify,
)
from constellation.attestation.snp.appraise import dump_default_policy
from constellation.base.errors import Rejected
from tests.fakes.amd import NOW, TCBS, AmdWorld

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "snp-default-policy.txt"
WORLD = AmdWorld()
CHIP = WORLD.chip()
DATA = b"\x5a" * 64
POLICY = default_policy(report_data=DATA, measurements=(b"\x4d" * 48,))


def authentic(crl: bytes | None = CHIP.crl, **changed: int | bytes) -> object:
    raw = CHIP.report(**({"report_data": DATA} | changed))
    given_ = Endorsements(vek=CHIP.vek, intermediate=CHIP.intermediate, crl=crl)
    return verify(parse_report(raw), endorsements=given_, roots=WORLD.roots, now=NOW)


def test_the_default_policy_is_the_one_that_was_read() -> None:
    assert GOLDEN.read_text() == dump_default_policy()


def test_every_unchecked_claim_has_a_reason_of_its_own_words() -> None:
    for name, rule in POLICY.items():
        if isinstance(rule, Unchecked):
            assert len(rule.reason) > 20, name


def test_a_good_report_is_accepted_and_says_what_went_unchecked() -> None:
    lines = appraise(authentic(), policy=POLICY)  # type: ignore[arg-type]
    assert any(line.startswith("chip_id: any genuine chip") for line in lines)


@pytest.mark.parametrize("crl", ["missing", "expired"])
def test_a_missing_or_expired_list_is_a_finding(crl: str) -> None:
    expired = WORLD.crl(next_update=NOW - timedelta(days=1))
    with pytest.raises(Rejected) as refused:
        appraise(authentic(None if crl == "missing" else expired), policy=POLICY)  # type: ignore[arg-type]
    absent = ("crl.present: found 0, expected 1",) if crl == "missing" else ()
    assert refused.value.findings == ("crl.current: found 0, expected 1", *absent)


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"policy": 0x30000 | 1 << 19}, "policy.debug: found 1, expected 0"),
        ({"policy": 0x30000 | 1 << 18}, "policy.migrate_ma: found 1, expected 0"),
        ({"policy": 0x30000 | 1 << 21}, "policy.cxl_allow: found 1, expected 0"),
        ({"policy": 0x30000 | 1 << 26}, f"policy.reserved: found {1 << 26}, expected 0"),
        ({"policy": 0x10000}, "policy.must_be_one: found 0, expected 1"),
        ({"key_info": 1 << 5}, "key_info.reserved: found 1, expected 0"),
        ({"reserved_208": b"\1".rjust(152, b"\0")}, "reserved: found 1, expected 0"),
        ({"vmpl": 1}, "vmpl: found 1, expected 0"),
        ({"vmpl": 0xFFFFFFFF}, "vmpl: found 4294967295, expected 0"),
        ({"report_data": bytes(64)}, "report_data: found 00"),
        ({"measurement": bytes(48)}, "measurement: found 00"),
        ({"host_data": b"\1" * 32}, "host_data: found 01"),
        ({"report_id_ma": bytes(32)}, "report_id_ma: found 00"),
        ({"platform_info": 0x5}, "platform_info.alias_check_complete: found 0, expected 1"),
        ({"platform_info": 0x65}, "platform_info.reserved: found 64, expected 0"),
    ],
)
def test_each_claim_is_judged(changed: dict[str, int | bytes], finding: str) -> None:
    with pytest.raises(Rejected) as refused:
        appraise(authentic(**changed), policy=POLICY)  # type: ignore[arg-type]
    (only,) = refused.value.findings
    assert only.startswith(finding)


@pytest.mark.parametrize("which", ["reported", "committed", "launch", "current"])
@pytest.mark.parametrize("part", ["bootloader", "snp", "microcode"])
def test_each_component_of_each_tcb_has_a_minimum(which: str, part: str) -> None:
    older = replace(CHIP.tcb, **{part: getattr(CHIP.tcb, part) - 1})
    chip = WORLD.chip(tcb=older) if which == "reported" else CHIP
    raw = chip.report(
        **{f"{w}_tcb": CHIP.tcb.pack(product=Product.MILAN) for w in ("current", "committed")},
        launch_tcb=CHIP.tcb.pack(product=Product.MILAN),
        report_data=DATA,
    )
    if which != "reported":
        raw = chip.report(**{f"{which}_tcb": older.pack(product=Product.MILAN)}, report_data=DATA)
    found = verify(parse_report(raw), endorsements=chip.endorsements(), roots=WORLD.roots, now=NOW)
    with pytest.raises(Rejected) as refused:
        appraise(found, policy=POLICY)
    (only,) = refused.value.findings
    assert only.startswith(f"milan.{which}_tcb.{part}: found {getattr(older, part)}, ")


def test_a_line_of_chips_without_minimum_is_refused() -> None:
    world = AmdWorld(product=Product.TURIN)
    chip = world.chip()
    found = verify(
        parse_report(chip.report(report_data=DATA)), endorsements=chip.endorsements(),
        roots=world.roots, now=NOW,
    )  # fmt: skip
    with pytest.raises(Rejected) as refused:
        appraise(found, policy=POLICY)
    assert "turin.reported_tcb.fmc: no rule" in refused.value.findings
    minima = {Line.TURIN: TCBS[Product.TURIN], Line.MILAN: TCBS[Product.MILAN]}
    both = default_policy(report_data=DATA, measurements=(b"\x4d" * 48,), minimum_tcb=minima)
    appraise(found, policy=both)


def test_keys_lent_to_clouds_are_accepted_only_for_named_ones() -> None:
    chip = WORLD.chip(kind=SigningKey.VLEK)
    found = verify(
        parse_report(chip.report(report_data=DATA)), endorsements=chip.endorsements(),
        roots=WORLD.roots, now=NOW,
    )  # fmt: skip
    with pytest.raises(Rejected, match=r"signing_key\.vlek: found 1, expected 0"):
        appraise(found, policy=POLICY)
    for clouds, accepted in ((("CN=cloud.example",), True), (("CN=other",), False), ((), False)):
        policy = default_policy(
            report_data=DATA, measurements=(b"\x4d" * 48,), signing_key=SigningKey.VLEK,
            csp_ids=clouds,
        )  # fmt: skip
        if accepted:
            appraise(found, policy=policy)
        else:
            with pytest.raises(Rejected, match="csp_id"):
                appraise(found, policy=policy)


def test_id_keys_can_be_demanded() -> None:
    policy = default_policy(
        report_data=DATA, measurements=(b"\x4d" * 48,), id_key_digests=(b"\2" * 48,)
    )
    appraise(authentic(id_key_digest=b"\2" * 48), policy=policy)  # type: ignore[arg-type]
    with pytest.raises(Rejected, match="id_key_digest"):
        appraise(authentic(id_key_digest=b"\3" * 48), policy=policy)  # type: ignore[arg-type]


def tighter(rule: Rule, data: st.DataObject) -> Rule:
    """Give a rule that accepts no more than `rule`."""
    match rule:
        case AtLeast(value):
            return AtLeast(value + data.draw(st.integers(0, 3)))
        case OneOf(values):
            return OneOf(values[: data.draw(st.integers(0, len(values)))])
        case Unchecked():
            return data.draw(st.sampled_from((rule, Exactly(0), OneOf(()))))
        case Exactly():
            return data.draw(st.sampled_from((rule, OneOf(()))))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_tightening_a_policy_never_accepts_more(data: st.DataObject) -> None:
    changed = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "policy": st.sampled_from((0x30000, 0xB0000)),
                "vmpl": st.integers(0, 3),
                "platform_info": st.integers(0, 255),
                "measurement": st.sampled_from((b"\x4d" * 48, bytes(48))),
            },
        )
    )
    found = claims(authentic(**changed))  # type: ignore[arg-type]
    loose: Policy = relevant(POLICY, found)
    names = data.draw(st.sets(st.sampled_from(sorted(loose)), max_size=8))
    tight = {n: tighter(r, data) if n in names else r for n, r in loose.items()}
    if not findings(tight, found):
        assert not findings(loose, found)
    assert set(describe(tight)) or not tight
