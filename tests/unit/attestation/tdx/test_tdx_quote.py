"""Published quotes parse to their published values, and back to the same bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.attestation.tdx.attributes import TdAttribute
from constellation.attestation.tdx.pck import load_certificate, parse_extension, split_pem
from constellation.attestation.tdx.quote import (
    MAX_QUOTE_BYTES,
    EnclaveReport,
    TdReport10,
    TdReport15,
    parse_quote,
)
from constellation.base.errors import FormatError
from tests.vectors import evidence

ITEMS = {n: i for n, i in evidence.items("intel-tdx").items() if n.startswith("quote-")}
QUOTE = evidence.read("intel-tdx", ITEMS["quote-tdx4-qvl"], "quote")


@pytest.mark.parametrize("name", ITEMS)
def test_a_published_quote_has_the_published_fields(name: str) -> None:
    data, values = evidence.read("intel-tdx", ITEMS[name], "quote"), ITEMS[name]["values"]
    quote = parse_quote(data)
    assert quote.pack() == data
    assert quote.header.version == values["quote_version"]
    assert quote.tee.name == values["tee"]
    for field, want in values["header"].items():
        found = getattr(quote.header, field)
        assert found == (int(want, 16) if field == "tee_type" else _same(found, want)), field
    for field, want in values["body"].items():
        found = getattr(quote.body, field)
        assert found == _same(found, want), field
    assert len(quote.trailing) == values["trailing_bytes"]
    assert (not any(quote.trailing)) is values["trailing_all_zero"]
    for field, want in values["qe_report"].items():
        found = getattr(quote.signature.qe_report, field)
        assert found == _same(found, want), field
    if values["td_attribute_flags"] is not None:
        assert isinstance(quote.body, TdReport10)
        for flag, want in values["td_attribute_flags"].items():
            assert bool(quote.body.td_attributes & TdAttribute[flag.upper()]) is want, flag
    newer = values["body_type"] == 3 or "tee_tcb_svn2" in values["body"]
    assert isinstance(quote.body, TdReport15) is newer


@pytest.mark.parametrize("name", ITEMS)
def test_a_published_pck_certificate_has_the_published_fields(name: str) -> None:
    quote = parse_quote(evidence.read("intel-tdx", ITEMS[name], "quote"))
    leaf = load_certificate(split_pem(quote.signature.pck_chain, what="chain")[0], what="PCK")
    pck, want = parse_extension(leaf), ITEMS[name]["values"]["pck"]
    assert pck.fmspc.hex() == want["fmspc"]
    assert pck.pce_id.hex() == want["pceid"]
    assert pck.ppid.hex() == want["ppid"]
    assert pck.pce_svn == want["pcesvn"]
    assert pck.cpu_svn.hex() == want["cpusvn"]
    assert list(pck.components) == want["comp_svns"]
    instance = pck.platform_instance_id
    assert (instance and instance.hex()) == want["platform_instance_id"]
    for field in ("dynamic_platform", "cached_keys", "smt_enabled"):
        assert getattr(pck, field) == want[field], field
    assert leaf.serial_number == int(want["serial"], 16)


def test_no_proper_prefix_of_a_quote_is_a_quote() -> None:
    whole = len(QUOTE) - ITEMS["quote-tdx4-qvl"]["values"]["trailing_bytes"]
    for size in range(whole):
        with pytest.raises(FormatError):
            parse_quote(QUOTE[:size])
    assert parse_quote(QUOTE[:whole]).trailing == b""


def test_a_quote_that_is_too_long_is_refused_unread() -> None:
    assert parse_quote(QUOTE.ljust(MAX_QUOTE_BYTES, b"\0")).trailing
    with pytest.raises(FormatError, match="at most"):
        parse_quote(QUOTE.ljust(MAX_QUOTE_BYTES + 1, b"\0"))


@given(st.binary(max_size=1200))
@settings(deadline=None)
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(FormatError):
        parse_quote(junk)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_quote_parses_or_is_a_format_error(data: st.DataObject) -> None:
    damaged = bytearray(QUOTE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(QUOTE) - 1))] = data.draw(st.integers(0, 255))
    try:
        quote = parse_quote(bytes(damaged))
    except FormatError:
        return
    assert quote.pack() == bytes(damaged)


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_junk_is_no_pem_and_no_certificate(junk: bytes) -> None:
    with pytest.raises(FormatError):
        split_pem(junk, what="chain")
    with pytest.raises(FormatError):
        load_certificate(junk, what="certificate")


@given(st.binary(min_size=384, max_size=384))
def test_an_enclave_report_survives_or_is_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert EnclaveReport.parse(data).pack() == data


def _same(found: Any, want: Any) -> Any:
    """Give the published value in the type that we have."""
    if isinstance(found, bytes):
        return bytes.fromhex(want)
    return int.from_bytes(bytes.fromhex(want), "little") if isinstance(want, str) else want
