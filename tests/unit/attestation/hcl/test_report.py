"""Published HCL reports: fields, binding, edits; and each rule of the runtime data."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.hcl.report import HashType, HclReport, ReportType, runtime_data_of
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.base.errors import FormatError, Untrusted
from tests.vectors import evidence
from tests.vectors.edits import edited

ITEMS = {i: item for i, item in evidence.items("azure").items() if "hcl" in item["values"]}
DATA = {i: evidence.read("azure", item, "hcl_report") for i, item in ITEMS.items()}
BASE = DATA["snp-v1-milan"]
JSON = json.loads(HclReport.parse(BASE).runtime_data)


def bound(report: HclReport, **changed: Any) -> bytes:
    arguments: dict[str, Any] = {"expected": report.report_type, "report_data": report.report_data}
    return runtime_data_of(report, **(arguments | changed))


@pytest.mark.parametrize("item", ITEMS)
def test_a_published_report_has_its_published_fields(item: str) -> None:
    report, values = HclReport.parse(DATA[item]), ITEMS[item]["values"]
    assert report.pack() == DATA[item]
    assert report.version == values["hcl"]["version"]
    assert report.report_type.name == values["hcl"]["report_type"]
    assert report.hash_type.name == values["hcl"]["hash_type"]
    raw = bound(report)
    assert raw == evidence.read("azure", ITEMS[item], "runtime_data")
    assert hashlib.sha256(raw).hexdigest() == values["hcl"]["var_data_sha256"]
    found = RuntimeData.parse(raw)
    modulus = found.ak.public_numbers().n.to_bytes(found.ak.key_size // 8, "big")
    assert hashlib.sha256(modulus).hexdigest() == values["ak_modulus_sha256"]
    assert found.user_data == bytes.fromhex(values["runtime_data_user_data"])
    said = values["vm_configuration"]
    assert found.configuration.secure_boot == said["secure-boot"]
    assert found.configuration.tpm_persisted == said.get("tpm-persisted")
    assert found.configuration.vm_unique_id == said["vmUniqueId"]
    if report.report_type is ReportType.TDX:
        assert report.report_data.hex() == values["tdreport_report_data"]
        assert len(report.chip_report) == 1024
    else:
        assert report.chip_report.hex()[2 * 0x50 : 2 * 0x90] == values["snp_report"]["report_data"]


EDITS = [
    m
    for m in evidence.mutations("azure")
    if m["file"] == "hcl_report.bin" and m["id"] != "azure/snp-v1-milan/snp-measurement"
]


@pytest.mark.parametrize("mutation", EDITS, ids=lambda m: m["id"])
def test_every_published_edit_of_header_or_runtime_data_is_refused(
    mutation: dict[str, Any],
) -> None:
    base = DATA[mutation["base"]]
    kind = HclReport.parse(base).report_type
    with pytest.raises((FormatError, Untrusted)):
        RuntimeData.parse(bound(HclReport.parse(edited(base, mutation["ops"])), expected=kind))


def test_a_report_of_another_chip_or_purpose_is_refused() -> None:
    report = HclReport.parse(BASE)
    with pytest.raises(Untrusted, match="of SNP, expected TDX"):
        bound(report, expected=ReportType.TDX)
    with pytest.raises(Untrusted, match="report data 00"):
        bound(report, report_data=bytes(64))
    with pytest.raises(Untrusted, match="report data"):
        bound(report, report_data=report.report_data[:32])
    with pytest.raises(Untrusted, match="report data"):
        bound(report, report_data=report.report_data[:63] + b"\1")
    with pytest.raises(Untrusted, match="status 1"):
        bound(replace(report, status=1))


def test_other_hashes_bind_too() -> None:
    for kind in HashType:
        report = replace(HclReport.parse(BASE), hash_type=kind)
        digest = hashlib.new(kind.name.lower(), report.runtime_data).digest()
        assert bound(report, report_data=digest.ljust(64, b"\0")) == report.runtime_data


def test_bytes_that_no_field_claims_are_zero() -> None:
    for offset in (20, len(BASE) - 1):
        with pytest.raises(FormatError, match="is not zero"):
            HclReport.parse(edited(BASE, [{"op": "xor", "offset": offset, "mask": 1}]))
    tdx = edited(DATA["tdx-v1"], [{"op": "xor", "offset": 32 + 1024, "mask": 1}])
    with pytest.raises(FormatError, match="after the TDREPORT"):
        HclReport.parse(tdx)


def changed(**top: Any) -> bytes:
    return json.dumps(JSON | top).encode()


def key(**fields: Any) -> list[dict[str, Any]]:
    return [JSON["keys"][0] | fields, JSON["keys"][1]]


def test_older_images_mark_the_ak_for_encryption() -> None:
    assert RuntimeData.parse(changed(keys=key(key_ops=["encrypt"]))).ak.key_size == 2048


def test_paravisors_of_2023_have_no_user_data() -> None:
    old = {name: value for name, value in JSON.items() if name != "user-data"}
    assert RuntimeData.parse(json.dumps(old).encode()).user_data == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'{"keys":[],"keys":[]}',
        changed(keys=[]),
        changed(keys={}),
        changed(keys=[JSON["keys"][0]] * 2),
        changed(keys=[JSON["keys"][1]]),
        changed(keys=key(kty="EC")),
        changed(keys=key(key_ops=["sign", "encrypt"])),
        changed(keys=key(key_ops=None)),
        changed(keys=key(e="AQ")),
        changed(keys=key(n=JSON["keys"][0]["n"][:200])),
        changed(keys=key(n=JSON["keys"][0]["n"] + "=")),
        changed(keys=key(n=5)),
        changed(**{"vm-configuration": None}),
        changed(**{"vm-configuration": JSON["vm-configuration"] | {"secure-boot": "true"}}),
        changed(**{"vm-configuration": JSON["vm-configuration"] | {"vmUniqueId": None}}),
        changed(**{"user-data": "00"}),
        changed(**{"user-data": "0 " * 64}),
        changed(**{"user-data": None}),
        b"[" * 3000,
        b" " * 20000,
    ],
)
def test_each_field_of_runtime_data_counts(raw: bytes) -> None:
    with pytest.raises(FormatError):
        RuntimeData.parse(raw)


@given(st.binary(max_size=100))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for parse in (HclReport.parse, RuntimeData.parse):
        for data in (junk, BASE[:8] + junk, BASE[: 1236 - len(junk)] + junk, BASE + junk + b"\1"):
            with pytest.raises(FormatError):
                parse(data)


@given(st.integers(0, len(BASE) - 1), st.integers(0, 255))
def test_what_parses_packs_to_the_same_bytes(offset: int, byte: int) -> None:
    data = BASE[:offset] + bytes([byte]) + BASE[offset + 1 :]
    with contextlib.suppress(FormatError):
        assert HclReport.parse(data).pack() == data
