"""Each check of a quote has a world that only it refuses; nothing missing is skipped."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.policy import findings
from constellation.attestation.roots.intel import ROOTS
from constellation.attestation.tdx.appraise import STRICT_STATUSES, claims, default_policy
from constellation.attestation.tdx.endorsements import (
    Collateral,
    parse_qe_identity,
    parse_tcb_info,
    signed_json,
)
from constellation.attestation.tdx.quote import TdReport10, TdReport15Ex, parse_quote
from constellation.attestation.tdx.status import TcbStatus, converge
from constellation.attestation.tdx.verify import verify, verify_signatures
from constellation.base.errors import ConstellationError, FormatError, Untrusted
from tests.fakes.intel import NOW, IntelWorld, td_report

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = timedelta(days=1)
WORLD = IntelWorld()
QUOTE = WORLD.quote()
COLLATERAL = WORLD.collateral()


def other_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_platform_with_which_nothing_is_wrong_is_up_to_date() -> None:
    verified = WORLD.verify().claims
    assert verified.tcb.status is TcbStatus.UP_TO_DATE
    assert verified.tcb.advisories == ()
    assert verified.tcb_evaluation_data_number == 18
    assert verified.next_update == NOW + 29 * DAY


@pytest.mark.parametrize("version", [4, 5])
def test_both_versions_of_quotes_are_verified(version: int) -> None:
    world = IntelWorld()
    world.version = version
    if version == 4:
        body = td_report()
        world.body = TdReport10(**{f.name: getattr(body, f.name) for f in fields(TdReport10)})
    assert world.verify().claims.quote.header.version == version


EXTENDED: dict[str, Any] = {
    "vm_id": 0,
    "td_id": b"\x1d" * 32,
    "dev_info": bytes(48),
    "init_service_td_hash": bytes(48),
    "init_service_td_attributes": bytes(8),
    "init_cpu_svn": bytes(16),
    "init_tee_tcb_svn": bytes(16),
    "init_tee_fmspc": bytes(12),
    "cur_service_td_hash": bytes(48),
    "cur_service_td_attributes": bytes(8),
}


def extended(**changed: Any) -> TdReport15Ex:
    body = td_report()
    base = {f.name: getattr(body, f.name) for f in fields(body)}
    return TdReport15Ex(**(base | EXTENDED | changed))


def test_the_extended_body_of_newer_modules_is_verified() -> None:
    world = IntelWorld()
    world.body = extended()
    raw = world.quote()
    quote = parse_quote(raw)
    assert (quote.body_type, len(quote.body.pack()), quote.pack()) == (4, 885, raw)
    assert world.verify().claims.quote.body == quote.body
    for wrong in (b"\x02\0", b"\x03\0", b"\x05\0"):
        with pytest.raises(FormatError, match="body"):
            parse_quote(raw[:48] + wrong + raw[50:])


@pytest.mark.parametrize(
    ("field", "value"),
    [("vm_id", 1)] + [(n, b"\1" * len(EXTENDED[n])) for n in EXTENDED if n[:3] in ("dev", "cur")]
    + [("init_service_td_hash", b"\1" * 48), ("init_service_td_attributes", b"\1" * 8)],
)  # fmt: skip
def test_a_td_with_devices_or_service_tds_is_outside_the_default_policy(
    field: str, value: Any
) -> None:
    world = IntelWorld()
    world.body = extended(**{field: value})
    rules = default_policy(
        {}, report_data=bytes(64), statuses=STRICT_STATUSES, minimum_tcb_evaluation=1
    )
    found = findings(rules, claims(world.verify()))
    assert [line for line in found if line.startswith(f"{field}:")]
    world.body = extended()
    assert not [x for x in findings(rules, claims(world.verify())) if x.startswith(f"{field}:")]


def test_an_enclave_is_verified_by_the_same_code() -> None:
    world = IntelWorld()
    world.become_enclave()
    verified = world.verify().claims
    assert verified.tcb.status is TcbStatus.UP_TO_DATE
    assert verified.tcb.module_status is None


def _set(name: str, value: object) -> Callable[[IntelWorld], None]:
    return lambda world: setattr(world, name, value)


def _tcb(**changed: object) -> Callable[[IntelWorld], None]:
    return lambda world: world.tcb_info.update(changed)


def _qe(**changed: object) -> Callable[[IntelWorld], None]:
    return lambda world: world.qe_identity.update(changed)


def _report(**changed: object) -> Callable[[IntelWorld], None]:
    def change(world: IntelWorld) -> None:
        world.qe_report = replace(world.qe_report, **changed)  # type: ignore[arg-type]

    return change


def _name(who: str, name: str) -> Callable[[IntelWorld], None]:
    return lambda world: world.names.update({who: name})


def _valid(who: str, first: int, last: int) -> Callable[[IntelWorld], None]:
    return lambda world: world.validity.update({who: (NOW + first * DAY, NOW + last * DAY)})


BROKEN: dict[str, tuple[Callable[[IntelWorld], None], str]] = {
    "QE of another vendor": (_set("vendor", b"\1" * 16), "QE vendor 0101"),
    "another PCK signed": (_set("signs_qe_report", other_key()), "QE report by the PCK"),
    "another key signed": (_set("signs_quote", other_key()), "quote by the attestation key"),
    "report of another key": (_report(report_data=b"\1" * 64), "does not name this attestation"),
    "junk after the key's digest": (_report(report_data=bytes(63) + b"\1"), "does not name"),
    "PCK CA signs no PCK": (_name("pck", "Intel SGX TCB Signing"), "want Intel SGX PCK Cert"),
    "PCK CA is another": (_name("ca", "Intel SGX Other CA"), "want Intel SGX PCK Platform CA or"),
    "a PCK CA states": (_name("signing", "Intel SGX PCK Platform CA"), "want Intel SGX TCB"),
    "PCK not yet valid": (_valid("pck", 1, 9), "PCK Certificate: not yet valid"),
    "PCK expired": (_valid("pck", -9, -1), "PCK Certificate: expired"),
    "CA expired": (_valid("ca", -9, -1), "Platform CA: expired"),
    "root expired": (_valid("root", -9, -1), "Root CA: expired"),
    "TCB signing key expired": (_valid("signing", -9, -1), "TCB Signing: expired"),
    "PCK revoked": (_set("revoked_by_pck_ca", [0x1001]), "PCK Certificate: revoked"),
    "CA revoked": (_set("revoked_by_root", [0x1002]), "Platform CA: revoked"),
    "TCB signing revoked": (_set("revoked_by_root", [0x1003]), "TCB Signing: revoked"),
    "lists expired": (_set("crl_window", (NOW - 9 * DAY, NOW - DAY)), "PCK CRL: expired"),
    "lists of tomorrow": (_set("crl_window", (NOW + DAY, NOW + 9 * DAY)), "CRL: not yet valid"),
    "TCB info expired": (_tcb(nextUpdate="2026-11-22T11:59:59Z"), "TCB info: expired"),
    "TCB info of tomorrow": (_tcb(issueDate="2026-11-22T12:00:01Z"), "TCB info: not yet"),
    "QE identity expired": (_qe(nextUpdate="2026-11-22T11:59:59Z"), "QE identity: expired"),
    "QE identity of tomorrow": (_qe(issueDate="2026-11-22T12:00:01Z"), "QE identity: not yet"),
    "TCB info of enclaves": (_tcb(id="SGX"), "TCB info: for SGX"),
    "QE identity of enclaves": (_qe(id="QE"), "QE identity: of 'QE'"),
    "another FMSPC": (_tcb(fmspc="00906ED50000"), "FMSPC 00906ed50000"),
    "another PCE": (_tcb(pceId="0001"), "PCE-ID 0001"),
    "unknown TCB type": (_tcb(tcbType=1), "type 1, want 0"),
    "SGX SVN too low": (_set("components", [2] * 16), "TCB level not supported"),
    "PCESVN too low": (_set("pce_svn", 10), "TCB level not supported"),
    "TDX SVN too low": (
        _set("body", td_report(tee_tcb_svn=bytes([5, 1, *bytes(14)]))),
        "TCB level not supported",
    ),
    "revoked level": (
        _set("components", [3, 3, 2, 2, 3, 1, 0, 3, *([0] * 8)]),
        "revoked",
    ),
    "unknown module": (
        _set("body", td_report(tee_tcb_svn=bytes([5, 3, 7, *bytes(13)]))),
        "no identity TDX_03",
    ),
    "module too old": (
        _set("body", td_report(tee_tcb_svn=bytes([1, 1, 7, *bytes(13)]))),
        "SVN 1 of TDX_01 is below",
    ),
    "module of another signer": (
        _set("body", td_report(mr_signer_seam=b"\1" * 48)),
        "TDX module: signed by 0101",
    ),
    "module with attributes": (
        _set("body", td_report(seam_attributes=b"\1" + bytes(7))),
        "TDX module: attributes 01",
    ),
    "QE of another signer": (_report(mr_signer=b"\1" * 32), "QE report: MRSIGNER 0101"),
    "QE with MISCSELECT": (_report(misc_select=b"\1\0\0\0"), "QE report: MISCSELECT"),
    "QE in debug mode": (_report(attributes=b"\x13" + bytes(15)), "QE report: attributes 13"),
    "QE is another product": (_report(isv_prod_id=1), "ISVPRODID 1, Intel's has 2"),
    "QE too old": (_report(isv_svn=1), "ISVSVN 1 is below"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_thing_is_refused_for_its_own_reason(name: str) -> None:
    world = IntelWorld()
    change, message = BROKEN[name]
    change(world)
    with pytest.raises(Untrusted, match=message):
        world.verify()


@pytest.mark.parametrize("field", [n for n in Collateral.__slots__ if n != "pck_crl_issuer_chain"])
def test_missing_collateral_is_refused_and_never_skipped(field: str) -> None:
    with pytest.raises(Untrusted, match=r"missing|signature does not hold"):
        WORLD.verify(**{field: b""})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Untrusted, match="collateral: TCB info is missing"):
        WORLD.verify(tcb_info=b"")
    with pytest.raises(Untrusted, match="collateral: QE identity is missing"):
        WORLD.verify(qe_identity=b"")


@pytest.mark.parametrize(
    "field", [n for n in Collateral.__slots__ if n.endswith(("_crl", "_signature"))]
)
def test_collateral_of_another_intel_is_refused(field: str) -> None:
    other = IntelWorld().collateral()
    with pytest.raises(Untrusted):
        WORLD.verify(**{field: getattr(other, field)})


def test_only_the_pinned_root_is_trusted() -> None:
    with pytest.raises(Untrusted, match="none of the given roots"):
        WORLD.verify(roots=ROOTS)
    with pytest.raises(Untrusted, match="none of the given roots"):
        WORLD.verify(roots=())


@pytest.mark.parametrize("name", ["pck", "ca", "signing"])
def test_a_certificate_that_another_key_signed_is_refused(name: str) -> None:
    world = IntelWorld()
    world.forged.append(name)
    with pytest.raises(Untrusted, match="the next certificate did not issue"):
        world.verify()


def test_faults_of_the_parts_add_up() -> None:
    status = TcbStatus
    assert converge(status.UP_TO_DATE, status.UP_TO_DATE) is status.UP_TO_DATE
    assert converge(status.SW_HARDENING_NEEDED, status.OUT_OF_DATE) is status.OUT_OF_DATE
    assert (
        converge(status.CONFIGURATION_AND_SW_HARDENING_NEEDED, status.OUT_OF_DATE)
        is status.OUT_OF_DATE_CONFIGURATION_NEEDED
    )
    assert (
        converge(status.SW_HARDENING_NEEDED, status.CONFIGURATION_NEEDED)
        is status.CONFIGURATION_AND_SW_HARDENING_NEEDED
    )
    assert converge(status.REVOKED, status.UP_TO_DATE) is status.REVOKED


@given(st.lists(st.sampled_from(list(TcbStatus)), min_size=1, max_size=3))
def test_the_order_of_parts_does_not_matter_and_none_heals_another(parts: list[TcbStatus]) -> None:
    status = converge(*parts)
    assert status is converge(*reversed(parts))
    assert converge(status, *parts) is status
    assert (status is TcbStatus.UP_TO_DATE) is (set(parts) == {TcbStatus.UP_TO_DATE})


def test_an_old_module_makes_a_new_platform_out_of_date() -> None:
    world = IntelWorld()
    world.body = td_report(tee_tcb_svn=bytes([3, 1, 7, *bytes(13)]))
    tcb = world.verify().claims.tcb
    assert (tcb.platform_status, tcb.module_status) == (
        TcbStatus.UP_TO_DATE,
        TcbStatus.OUT_OF_DATE,
    )
    assert (tcb.status, tcb.advisories) == (TcbStatus.OUT_OF_DATE, ("INTEL-SA-00999",))


def test_a_module_without_a_version_is_compared_like_the_other_components() -> None:
    world = IntelWorld()
    world.body = td_report(tee_tcb_svn=bytes([4, 0, 7, *bytes(13)]))
    tcb = world.verify().claims.tcb
    assert (tcb.status, tcb.module_status) == (TcbStatus.SW_HARDENING_NEEDED, None)


def test_an_old_quoting_enclave_makes_a_new_platform_out_of_date() -> None:
    world = IntelWorld()
    world.qe_report = replace(world.qe_report, isv_svn=3)
    tcb = world.verify().claims.tcb
    assert (tcb.status, tcb.advisories) == (TcbStatus.OUT_OF_DATE, ("INTEL-SA-00615",))


@given(st.integers(0, 8 * len(QUOTE) - 1))
@settings(deadline=None, max_examples=100)
def test_no_flipped_bit_of_a_quote_is_accepted(bit: int) -> None:
    flipped = bytearray(QUOTE)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, Untrusted)):
        verify_signatures(parse_quote(bytes(flipped)), roots=WORLD.roots, now=NOW)


@given(st.sampled_from([n for n in Collateral.__slots__ if n != "pck_crl_issuer_chain"]), st.data())
@settings(deadline=None, max_examples=100)
def test_no_flipped_bit_of_collateral_is_accepted(field: str, data: st.DataObject) -> None:
    flipped = bytearray(getattr(COLLATERAL, field))
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, Untrusted)):
        verify(
            parse_quote(QUOTE),
            collateral=replace(COLLATERAL, **{field: bytes(flipped)}),
            roots=WORLD.roots,
            now=NOW,
        )


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_junk_in_place_of_collateral_is_one_of_our_errors(junk: bytes) -> None:
    for parser in (parse_tcb_info, parse_qe_identity, Collateral.parse):
        with pytest.raises(FormatError):
            parser(junk)
    with pytest.raises(FormatError):
        signed_json(junk, name="tcbInfo")
    for field in ("pck_crl", "root_ca_crl", "tcb_info_issuer_chain"):
        with pytest.raises(ConstellationError):
            WORLD.verify(**{field: junk})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.sampled_from(["tcb_info", "qe_identity"]), st.data())
@settings(deadline=None, max_examples=60)
def test_a_statement_with_another_value_is_read_or_a_format_error(
    name: str, data: st.DataObject
) -> None:
    world = IntelWorld()
    statement = getattr(world, name)
    place = statement
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        value = place[key]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]
        if not isinstance(value, dict) or data.draw(st.booleans()):
            place[key] = data.draw(_JSON)
            break
        place = value
    with contextlib.suppress(FormatError, Untrusted):
        world.verify()


def test_a_key_twice_in_a_statement_is_refused() -> None:
    twice = COLLATERAL.tcb_info.replace(b'"version":3', b'"version":3,"version":3')
    with pytest.raises(FormatError, match="twice"):
        parse_tcb_info(twice)


def test_a_naive_clock_is_a_bug_and_not_a_verdict() -> None:
    with pytest.raises(TypeError):
        WORLD.verify(now=NOW.replace(tzinfo=None))
