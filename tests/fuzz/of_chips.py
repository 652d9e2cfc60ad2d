"""Targets: what chips and their makers say: reports, quotes, certificates, collateral."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cryptography import x509

from constellation.attestation import chain, show
from constellation.attestation.hcl.report import HclReport
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.attestation.snp.endorsements import (
    pack_certificate_table,
    parse_certificate_table,
    vek_facts,
)
from constellation.attestation.snp.report import parse_report
from constellation.attestation.tdx.chain import verify_crl
from constellation.attestation.tdx.endorsements import (
    Collateral,
    parse_qe_identity,
    parse_tcb_info,
    signed_json,
)
from constellation.attestation.tdx.pck import load_certificate, parse_extension, split_pem
from constellation.attestation.tdx.pcs import platform_of
from constellation.attestation.tdx.quote import parse_quote
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import der
from constellation.crypto.certificate import Certificate, RevocationList
from tests.fakes.intel import NOW
from tests.fuzz import seeds
from tests.fuzz.target import Target, repeated

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]


def _vek(data: bytes) -> object:
    return vek_facts(Certificate.parse(data, what="fuzz"))


def _der(data: bytes) -> object:
    """Walk a value by its own tags: every reader, at any depth."""
    reader, seen = der.DerReader(data, what="fuzz"), 0
    stack = [reader]
    while stack:
        top = stack[-1]
        if not top.remaining:
            top.end()
            stack.pop()
            continue
        seen += 1
        if top.at(der.SEQUENCE):
            stack.append(top.enter(der.SEQUENCE, "sequence"))
        elif top.at(der.INTEGER):
            top.integer("integer")
        elif top.at(der.BOOLEAN):
            top.boolean("boolean")
        elif top.at(der.BIT_STRING):
            top.bits("bits")
        elif top.at(der.OID):
            top.oid("oid")
        elif top.at(der.UTC_TIME) or top.at(der.GENERALIZED_TIME):
            top.time("time")
        else:
            top.skip("other")
    return seen


def _intel_crl(data: bytes) -> object:
    (root,) = seeds.intel().roots
    return verify_crl(data, issuer=x509.load_der_x509_certificate(root), now=NOW, what="fuzz")


def _quote(data: bytes) -> object:
    quote = parse_quote(data)
    return platform_of(quote)


def _pck(data: bytes) -> object:
    ders = split_pem(data, what="fuzz") if data.startswith(b"-----") else (data,)
    leaf, *_ = [load_certificate(der, what="fuzz") for der in ders]
    return parse_extension(leaf)


def _pcs(data: bytes) -> object:
    for name, parse in (("tcbInfo", parse_tcb_info), ("enclaveIdentity", parse_qe_identity)):
        try:
            inner, _ = signed_json(data, name=name)
        except FormatError:
            continue
        return parse(inner)
    raise FormatError("neither")


def _hcl(data: bytes) -> object:
    report = HclReport.parse(data)
    assert report.pack() == data
    return RuntimeData.parse(report.runtime_data), report.chip_report, report.expected_report_data


def _reports() -> Iterable[bytes]:
    chip = seeds.amd().chip()
    yield chip.report()
    yield from seeds.parts("report")


def _tables() -> Iterable[bytes]:
    chip = seeds.amd().chip()
    yield pack_certificate_table({"vcek": chip.vek, "ask": chip.intermediate})
    yield pack_certificate_table({"vlek": chip.vek, "crl": seeds.amd().crl()})
    yield pack_certificate_table({})


def _quotes() -> Iterable[bytes]:
    yield seeds.intel().quote()
    yield from seeds.parts("td_quote", "quote")


def _collateral() -> Collateral:
    return seeds.intel().collateral()


def _answers() -> Iterable[bytes]:
    given = _collateral()
    for name, inner in (("tcbInfo", given.tcb_info), ("enclaveIdentity", given.qe_identity)):
        yield b'{"%s":%s,"signature":"%s"}' % (name.encode(), inner, b"0" * 128)


def _tcb_info_of(size: int) -> bytes:
    """Make a TCB info with as many levels as fit."""
    document = json.loads(_collateral().tcb_info)
    level = document["tcbLevels"][0]
    count = max(1, size // len(json.dumps(level)))
    document["tcbLevels"] = [level] * count
    return json.dumps(document, separators=(",", ":")).encode()


TARGETS = (
    Target(
        name="snp-report",
        run=parse_report,
        seeds=_reports,
        evidence=("amd-snp/**/*report*.bin",),
    ),
    Target(
        name="snp-certificate-table",
        run=parse_certificate_table,
        seeds=_tables,
        evidence=("amd-snp/**/*cert*table*", "amd-snp/**/*certs*.bin"),
    ),
    Target(
        name="snp-vek",
        run=_vek,
        seeds=lambda: seeds.parts("vcek", "vlek"),
        evidence=("amd-snp/**/*vcek*.der", "amd-snp/**/*vlek*.der", "azure/**/vcek.der"),
    ),
    Target(
        name="certificate",
        run=lambda data: Certificate.parse(data, what="fuzz"),
        seeds=seeds.certificates,
        evidence=("**/*.der", "**/*.pem"),
    ),
    Target(
        name="certificates-library",
        run=lambda data: chain.load_all(data, what="fuzz"),
        seeds=seeds.certificates,
        evidence=("**/*.pem", "gcp/**/*.der"),
    ),
    Target(
        name="crl",
        run=lambda data: RevocationList.parse(data, what="fuzz"),
        seeds=lambda: [seeds.amd().crl(), *seeds.parts("crl"), _collateral().pck_crl],
        evidence=("**/*crl*.der",),
        max_bytes=65536,
    ),
    Target(
        name="intel-crl",
        run=_intel_crl,
        seeds=lambda: [_collateral().pck_crl, _collateral().root_ca_crl],
        allowed=(FormatError, Untrusted),
        evidence=("intel-tdx/**/*crl*.der",),
        max_bytes=65536,
    ),
    Target(
        name="der",
        run=_der,
        seeds=lambda: [*seeds.parts("vcek", "ak_certificate", "crl"), _collateral().root_ca_crl],
        long=repeated(b"", b"\x30\x06\x02\x01\x05\x06\x01\x2a"),
    ),
    Target(
        name="tdx-quote",
        run=_quote,
        seeds=_quotes,
        evidence=("intel-tdx/quotes/*.bin", "azure/**/td_quote.bin"),
    ),
    Target(
        name="tdx-pck",
        run=_pck,
        seeds=lambda: [bytes(parse_quote(seeds.intel().quote()).signature.pck_chain)],
        evidence=("intel-tdx/**/*pck*.pem",),
    ),
    Target(
        name="tdx-tcb-info",
        run=parse_tcb_info,
        seeds=lambda: [_collateral().tcb_info],
        evidence=("intel-tdx/**/tcb_info.json",),
        long=_tcb_info_of,
        max_bytes=65536,
    ),
    Target(
        name="tdx-qe-identity",
        run=parse_qe_identity,
        seeds=lambda: [_collateral().qe_identity],
        evidence=("intel-tdx/**/qe_identity.json",),
    ),
    Target(name="tdx-pcs-answer", run=_pcs, seeds=_answers, max_bytes=65536),
    Target(
        name="tdx-collateral",
        run=Collateral.parse,
        seeds=lambda: [_collateral().dump()],
        evidence=("intel-tdx/collateral/*.json",),
        max_bytes=65536,
    ),
    Target(
        name="azure-hcl",
        run=_hcl,
        seeds=lambda: seeds.parts("hcl_report"),
        evidence=("azure/**/hcl_report*.bin",),
    ),
    Target(
        name="azure-runtime-data",
        run=RuntimeData.parse,
        seeds=lambda: [HclReport.parse(r).runtime_data for r in seeds.parts("hcl_report")],
    ),
    Target(
        name="evidence-show",
        run=show.show,
        seeds=lambda: seeds.parts("report", "document", "hcl_report", "event_log", "quote"),
        evidence=("**/*.bin", "**/*.der", "**/*.cose"),
    ),
)
