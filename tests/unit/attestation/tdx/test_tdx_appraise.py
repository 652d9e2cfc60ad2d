"""Default policies as a security officer reads them; what they refuse of an authentic quote."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    findings,
    require,
)
from constellation.attestation.tdx.appraise import (
    REGISTERS,
    STRICT_STATUSES,
    attester_id,
    claims,
    default_policy,
    enclave_policy,
)
from constellation.attestation.tdx.attributes import TdAttribute, reserved_bits
from constellation.attestation.tdx.quote import EnclaveReport
from constellation.attestation.tdx.status import TcbStatus
from constellation.base.errors import Rejected
from tests.fakes.intel import IntelWorld, td_report

if TYPE_CHECKING:
    from constellation.attestation.model import Claims

GOLDEN = Path(__file__).resolve().parents[3] / "golden"
SEPT = int(TdAttribute.SEPT_VE_DISABLE)


def registers() -> dict[str, Rule]:
    body = td_report()
    return {name: Exactly(getattr(body, name)) for name in REGISTERS}


def policy(**changed: Any) -> Policy:
    arguments: dict[str, Any] = {
        "report_data": bytes(64),
        "statuses": STRICT_STATUSES,
        "minimum_tcb_evaluation": 18,
    }
    return default_policy(registers(), **(arguments | changed))


def claims_of(world: IntelWorld) -> Claims:
    return claims(world.verify())


def shown(policy: Policy) -> str:
    """Give one line a claim."""

    def value(found: bytes | int) -> str:
        if isinstance(found, int):
            return str(found)
        if not found:
            return "absent"
        if not any(found):
            return f"{len(found)} zero bytes"
        return found.decode() if found.isascii() else found.hex()

    def rule(found: Rule) -> str:
        match found:
            case Exactly(one):
                return f"exactly {value(one)}"
            case OneOf(several):
                return "one of: " + (", ".join(map(value, several)) or "nothing")
            case AtLeast(least):
                return f"at least {least}"
            case Unchecked(reason):
                return f"unchecked: {reason}"

    return "".join(f"{name}: {rule(policy[name])}\n" for name in sorted(policy))


@pytest.mark.parametrize("name", ["policy-tdx.txt", "policy-sgx.txt"])
def test_the_default_policy_is_the_one_that_was_read_and_approved(name: str) -> None:
    common: dict[str, Any] = {
        "report_data": bytes(64),
        "statuses": STRICT_STATUSES,
        "minimum_tcb_evaluation": 18,
    }
    empty = OneOf(())
    made = (
        default_policy({}, **common)
        if name == "policy-tdx.txt"
        else enclave_policy(mr_enclave=empty, mr_signer=empty, isv_svn=AtLeast(1), **common)
    )
    path = GOLDEN / name
    if os.environ.get("CONSTELLATION_GOLDEN"):  # write it anew; then read the diff
        path.write_text(shown(made))
    assert shown(made) == path.read_text()


def test_the_default_policy_accepts_a_td_with_which_nothing_is_wrong() -> None:
    unchecked = require(policy(), claims_of(IntelWorld()))
    assert [line.partition(":")[0] for line in unchecked] == [
        "init_cpu_svn",
        "init_tee_fmspc",
        "init_tee_tcb_svn",
        "mr_seam",
        "pck.cached_keys",
        "pck.dynamic_platform",
        "pck.fmspc",
        "pck.platform_instance_id",
        "pck.ppid",
        "pck.smt_enabled",
        "tcb.advisories",
        "tcb.date",
        "td_attributes.lass",
        "td_id",
        "tee_tcb_svn",
        "tee_tcb_svn2",
        "xfam",
    ]


def test_a_register_without_reference_values_accepts_nothing() -> None:
    made = default_policy(
        {}, report_data=bytes(64), statuses=STRICT_STATUSES, minimum_tcb_evaluation=18
    )
    found = findings(made, claims_of(IntelWorld()))
    assert [line.partition(":")[0] for line in found] == sorted(REGISTERS)


BAD_TDS = {
    **{
        f"td_attributes.{a.name.lower()}": {"td_attributes": SEPT | a}
        for a in TdAttribute
        if a.name and a not in (TdAttribute.SEPT_VE_DISABLE, TdAttribute.LASS)
    },
    "td_attributes.sept_ve_disable": {"td_attributes": 0},
    "td_attributes.reserved": {"td_attributes": SEPT | 1 << 40},
    "mr_owner": {"mr_owner": b"\1" * 48},
    "mr_owner_config": {"mr_owner_config": b"\1" * 48},
    "mr_service_td": {"mr_service_td": b"\1" * 48},
    **{name: {name: b"\1" * 48} for name in REGISTERS},
}


@pytest.mark.parametrize("name", BAD_TDS)
def test_each_unusual_thing_about_a_td_is_a_finding_of_its_own(name: str) -> None:
    world = IntelWorld()
    world.body = td_report(**BAD_TDS[name])
    found = findings(policy(), claims_of(world))
    assert [line.partition(":")[0] for line in found] == [name]


def test_every_finding_is_reported_at_once() -> None:
    world = IntelWorld()
    world.body = td_report(td_attributes=SEPT | TdAttribute.DEBUG, rtmr1=b"\7" * 48)
    world.components = [6, 6, *world.components[2:]]
    with pytest.raises(Rejected) as refused:
        require(policy(), claims_of(world))
    assert [line.partition(":")[0] for line in refused.value.findings] == [
        "rtmr1",
        "tcb.status",
        "td_attributes.debug",
    ]
    assert "found 'SWHardeningNeeded', expected one of 'UpToDate'" in str(refused.value)


def test_the_policy_says_which_statuses_are_good_enough() -> None:
    world = IntelWorld()
    world.components = [6, 6, *world.components[2:]]
    found = claims_of(world)
    assert found["tcb.advisories"] == b"INTEL-SA-00960"
    assert findings(policy(), found)
    accepted = (TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED)
    assert not findings(policy(statuses=accepted), found)
    with pytest.raises(ValueError, match="revoked"):
        policy(statuses=(TcbStatus.REVOKED,))


def test_older_statements_of_intel_that_still_hold_are_refused() -> None:
    world = IntelWorld()
    world.qe_identity["tcbEvaluationDataNumber"] = 17
    found = findings(policy(), claims_of(world))
    assert found == ("tcb.evaluation: found 17, expected at least 18",)


def test_report_data_of_another_purpose_is_a_finding() -> None:
    world = IntelWorld()
    found = claims(world.verify(quote=world.quote(b"\1" * 64)))
    assert [f.partition(":")[0] for f in findings(policy(), found)] == ["report_data"]


def test_an_enclave_in_debug_mode_is_a_finding() -> None:
    world = IntelWorld()
    world.become_enclave()
    rules = enclave_policy(
        mr_enclave=Exactly(b"\xec" * 32),
        mr_signer=Exactly(world.qe_report.mr_signer),
        isv_svn=AtLeast(6),
        report_data=bytes(64),
        statuses=STRICT_STATUSES,
        minimum_tcb_evaluation=18,
    )
    assert not findings(rules, claims_of(world))
    assert isinstance(world.body, EnclaveReport)
    world.body = replace(world.body, attributes=b"\x07" + bytes(15))
    assert [f.partition(":")[0] for f in findings(rules, claims_of(world))] == ["attributes.debug"]


def test_a_platform_keeps_its_identity_through_a_tcb_recovery() -> None:
    world = IntelWorld()
    before = attester_id(world.verify())
    world.components, world.pck_serial = [8, 8, *world.components[2:]], 0x2001
    assert attester_id(world.verify()) == before
    assert len(before) == 32


def test_bits_that_the_specification_does_not_name_are_shown() -> None:
    assert reserved_bits(0xFFFF_FFFF_FFFF_FFFF).bit_count() == 64 - len(TdAttribute)
    assert reserved_bits(SEPT | TdAttribute.DEBUG) == 0


_CLAIMS = claims(IntelWorld().verify())


@given(st.data())
@settings(deadline=None)
def test_tightening_a_policy_never_accepts_more(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(_CLAIMS)))
    loose = dict(policy())
    loose[name] = data.draw(
        st.sampled_from([Unchecked("why"), Exactly(_CLAIMS[name]), AtLeast(0), OneOf(())])
    )
    rule = loose[name]
    tight = dict(loose)
    match rule:
        case Unchecked():
            tight[name] = data.draw(st.sampled_from([Exactly(0), Exactly(_CLAIMS[name])]))
        case AtLeast(value):
            tight[name] = AtLeast(value + data.draw(st.integers(0, 1 << 70)))
        case _:
            tight[name] = OneOf(())
    other = dict(_CLAIMS)
    other[name] = data.draw(st.sampled_from([_CLAIMS[name], 0, b""]))
    if findings(loose, other):
        assert findings(tight, other)


def test_a_register_that_a_td_does_not_have_is_a_bug() -> None:
    with pytest.raises(ValueError, match="pcr4"):
        default_policy(
            {"pcr4": OneOf(())},
            report_data=bytes(64),
            statuses=STRICT_STATUSES,
            minimum_tcb_evaluation=18,
        )
