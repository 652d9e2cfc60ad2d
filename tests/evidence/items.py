"""How is one published item verified, by its kind?

Each procedure gets platform, id and entry, and returns when the item has its expected verdict, with
its published values; else it raises. What the room tests already do with an entry is called there.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha384
from typing import TYPE_CHECKING, Any

import pytest

from constellation.attestation import chain, kinds
from constellation.attestation.kinds import Given, Verdict
from constellation.attestation.platforms import td_log
from constellation.attestation.roots import amd, aws, google, intel, microsoft
from constellation.attestation.snp.verify import verify_intermediate
from constellation.attestation.tdx import rtmr
from constellation.attestation.tdx.quote import TdReport10, parse_quote
from constellation.attestation.tdx.verify import verify_signatures
from constellation.attestation.tpm import forms, quote
from constellation.attestation.tpm.eventlog import EventLog
from constellation.attestation.tpm.replay import verify as verify_log
from constellation.attestation.tpm.structures import Alg, Attest
from constellation.base.errors import FormatError, Rejected, Untrusted
from constellation.crypto.certificate import RevocationList
from tests.unit.attestation.ima import test_measurement_list as ima
from tests.unit.attestation.snp import test_evidence as snp
from tests.unit.attestation.tdx import test_tdx_verify_published as tdx
from tests.unit.attestation.tpm import test_eventlog as logs
from tests.vectors import evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    Item = dict[str, Any]
    Procedure = Callable[[str, str, Item], None]

__all__ = ["QUOTE", "TIMELESS", "procedure_of", "run"]

TIMELESS = datetime(2026, 1, 1, tzinfo=UTC)
"""The time for entries without one: nothing in them ends."""

_ROOTS = {"aws": aws.ROOTS, "azure": microsoft.ROOTS, "gcp": google.ROOTS, "intel-tdx": intel.ROOTS}
QUOTE = {"quote": "tpms_attest", "signature": "signature", "pcrs": "pcrs"}


def _at(item: Item) -> datetime:
    return datetime.fromisoformat(item["verify_at"]) if item["verify_at"] else TIMELESS


def _given(platform: str, item: Item, **roles: str) -> dict[str, bytes]:
    return {ours: evidence.read(platform, item, role) for ours, role in roles.items()}


def _judge(kind: str, files: dict[str, bytes], item: Item, **how: Any) -> Verdict:
    return kinds.verify(kind, Given(files=files, now=_at(item), **how), policy=None)


def _pcrs(verdict: Verdict) -> dict[str, str]:
    found = verdict.claims.items()
    return {n[3:]: v.hex() for n, v in found if n.startswith("pcr") and isinstance(v, bytes)}


def _nonce(item: Item) -> bytes:
    return bytes.fromhex(item["values"]["tpms_attest"]["extra_data"])


def _all_files(platform: str, item: Item) -> list[bytes]:
    out = []
    for file in item["files"]:
        data = (evidence.folder() / platform / file["file"]).read_bytes()
        # authorities that were put together from several sources have no digest of their own
        assert sha256(data).hexdigest() == file.get("sha256", sha256(data).hexdigest())
        out.append(data)
    return out


def _root_chain(platform: str, _name: str, item: Item) -> None:
    """Every certificate leads to a root that the library carries.

    An entry also keeps authorities that had ended at its time: their last day counts.
    """
    certificates = [c for data in _all_files(platform, item) for c in chain.load_all(data, what="")]
    carried = amd.ARKS if platform == "amd-snp" else _ROOTS[platform]
    roots = tuple(c for data in carried for c in chain.load_all(data, what="root"))
    assert any(c in roots for c in certificates)
    for certificate in certificates:
        if certificate in roots:
            continue
        now = min(_at(item), certificate.not_valid_after_utc - timedelta(seconds=1))
        if platform == "amd-snp":
            der = certificate.public_bytes(chain.Encoding.DER)
            verify_intermediate(der, roots=amd.ARKS, now=now)
        else:
            chain.verify(certificate, intermediates=(), roots=roots, now=now, what="authority")


def _root(platform: str, _name: str, item: Item) -> None:
    (data,) = _all_files(platform, item)
    (certificate,) = chain.load_all(data, what="root")
    assert certificate in [c for d in _ROOTS[platform] for c in chain.load_all(d, what="root")]
    assert certificate.not_valid_after_utc > _at(item)


def _snp_list(platform: str, _name: str, item: Item) -> None:
    (raw,) = _all_files(platform, item)
    parsed, values = RevocationList.parse(raw, what="CRL"), item["values"]
    assert parsed.this_update == snp.at(values["this_update"])
    assert parsed.next_update == snp.at(values["next_update"])
    assert parsed.revoked == frozenset(values["revoked"])
    used = 0
    for name in snp.REPORTS:
        other = snp.ITEMS[name]
        report, vek = evidence.read(platform, other, "report"), snp.certificate_of(other)
        try:
            found = snp.judge(report, vek, snp.at(other["verify_at"]), crl=raw)
        except Untrusted:
            continue  # of another product
        current = parsed.this_update <= snp.at(other["verify_at"]) <= parsed.next_update
        assert found.claims.crl_current is current
        used += 1
    assert used, "no report of this product to hold the list against"


def _snp_report(platform: str, name: str, item: Item) -> None:
    report, vek = evidence.read(platform, item, "report"), snp.certificate_of(item)
    files = {"report": report, "vek": vek}
    if item["expected"]["verdict"] == "reject":
        with pytest.raises(Untrusted, match=snp.expected_error(item["expected"]["error"])[1]):
            _judge("snp", files, item, report_data=report[80:144])
    else:
        said = bytes.fromhex(item["values"]["report"]["report_data"])
        found = _judge("snp", files, item, report_data=said)
        assert found.claims["measurement"] == bytes.fromhex(item["values"]["report"]["measurement"])
        snp.test_a_published_report_gets_its_verdict(name)
    snp.test_parsed_fields_are_the_published_ones(name)


def _snp_chain(_platform: str, _name: str, item: Item) -> None:
    vek = snp.certificate_of(item)
    snp.verify_chain(snp.Endorsements(vek=vek), roots=amd.ARKS, now=snp.at(item["verify_at"]))
    snp.same_certificate(vek, item["values"]["vek"])


def _tdx_quote(platform: str, name: str, item: Item) -> None:
    data = evidence.read(platform, item, "quote")
    body, values = parse_quote(data).body, item["values"]["body"]
    found = _judge("tdx", {"quote": data}, item, report_data=body.report_data)
    for claim, value in found.claims.items():
        if claim in values:
            assert value == bytes.fromhex(values[claim]), claim
    tdx.test_signatures_of_a_published_quote_hold(name)
    for case in item["expected"].get("cases", ()):
        tdx.test_a_published_quote_has_its_published_status(name, case)


def _tdx_collateral(_platform: str, name: str, _item: Item) -> None:
    tdx.test_published_collateral_has_the_published_fields(name)


def _tdx_statement(platform: str, _name: str, item: Item) -> None:
    (answer,) = _all_files(platform, item)
    body, signature = tdx.signed_json(answer, name="tcbInfo")
    for bundle in tdx.BUNDLES:
        start = tdx.bundle(bundle.removeprefix("collateral-"))
        changed = tdx.replace(start, tcb_info=body, tcb_info_signature=signature)
        now = tdx.at(tdx.ITEMS[bundle]["verify_at"])
        with pytest.raises(Untrusted, match="TCB info: signature"):
            tdx.verify_collateral(changed, roots=intel.ROOTS, now=now)


def _azure_snp(platform: str, _name: str, item: Item) -> None:
    roles = {"hcl_report": "hcl_report", "vcek": "vcek"}
    how = {}
    if "tpms_attest" in item["values"]:
        roles, how = roles | QUOTE, {"nonce": _nonce(item)}
    found, values = (
        _judge("azure-snp", _given(platform, item, **roles), item, **how),
        item["values"],
    )
    if how:
        assert _pcrs(found) == values["pcrs_sha256"]
    assert found.claims["measurement"] == bytes.fromhex(values["snp_report"]["measurement"])
    assert found.claims["azure.vm_unique_id"] == values["vm_configuration"]["vmUniqueId"].encode()


def _azure_tdx(platform: str, _name: str, item: Item) -> None:
    roles = {"hcl_report": "hcl_report", "td_quote": "td_quote"} | QUOTE
    found = _judge("azure-tdx", _given(platform, item, **roles), item, nonce=_nonce(item))
    assert _pcrs(found) == item["values"]["pcrs_sha256"]
    assert found.claims["mr_td"] == bytes.fromhex(item["values"]["td_quote"]["body"]["mr_td"])


def _azure_hcl(platform: str, name: str, item: Item) -> None:
    if "snp_report" in item["values"]:
        _azure_snp(platform, name, item)
        return
    found = _judge("azure-hcl", _given(platform, item, hcl_report="hcl_report"), item)
    said = item["values"]["vm_configuration"]["vmUniqueId"].encode()
    assert found.claims["azure.vm_unique_id"] == said


def _azure_quote(platform: str, _name: str, item: Item) -> None:
    given = _given(platform, item, **QUOTE, ak="akpub")
    found = _judge("tpm-quote", given, item, nonce=_nonce(item))
    assert _pcrs(found) == item["values"]["pcrs_sha256"]


def _azure_ak(platform: str, _name: str, item: Item) -> None:
    _judge("azure-ak", _given(platform, item, ak_certificate="ak certificate"), item)


def _gce_certificate(platform: str, _name: str, item: Item) -> None:
    (data,) = _all_files(platform, item)
    right, wrong = ("gce-ak", "gce-ek") if " AK " in item["kind"] else ("gce-ek", "gce-ak")
    found = _judge(right, {"certificate": data}, item)
    _same_instance(found, item)
    with pytest.raises(Untrusted, match="it is not an"):
        _judge(wrong, {"certificate": data}, item)


def _same_instance(found: Verdict, item: Item) -> None:
    for name, value in (item["values"]["instance_info"] or {}).items():
        claim = found.claims.get("gce." + re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
        if claim is not None:
            assert (claim.decode() if isinstance(claim, bytes) else str(claim)) == str(value), name


def _gce_banks(platform: str, _name: str, item: Item) -> None:
    nonce = bytes.fromhex(item["values"]["nonce"] or "")
    for bank in ("sha1", "sha256", "sha384"):
        given = _given(
            platform, item, quote=f"tpms_attest {bank}", signature=f"TPMT_SIGNATURE {bank}",
            pcrs=f"pcrs {bank}", ak_certificate="ak_cert", event_log="TCG event log",
        )  # fmt: skip
        if bank == "sha1":
            with pytest.raises(Untrusted, match="SHA-1 is not accepted"):
                _judge("gce-vtpm", given, item, nonce=nonce)
        else:
            _same_instance(_judge("gce-vtpm", given, item, nonce=nonce), item)


def _gce_quote(platform: str, _name: str, item: Item) -> None:
    roles = {**QUOTE, "signature": "ECDSA", "ak_certificate": "ak chain"}
    nonce = bytes.fromhex(item["values"]["nonce"])
    found = _judge("gce-vtpm", _given(platform, item, **roles), item, nonce=nonce)
    assert _pcrs(found) == item["values"]["pcrs_sha256"]
    _same_instance(found, item)


def _nitro(platform: str, _name: str, item: Item) -> None:
    tpm = item["kind"].startswith("NitroTPM")
    roles = {**QUOTE, "signature": "ECDSA"} if tpm else {}
    given = _given(platform, item, document="COSE_Sign1", **roles)
    nonce = bytes.fromhex(item["values"]["nonce"] or "")
    right, wrong = ("nitro-tpm", "nitro-enclave") if tpm else ("nitro-enclave", "nitro-tpm")
    found = _judge(right, given, item, nonce=nonce)
    assert _pcrs(found) == item["values"]["pcrs"]
    assert found.claims["nitro.timestamp_ms"] == item["values"]["timestamp_ms"]
    with pytest.raises(Untrusted, match="expected"):
        _judge(wrong, {"document": given["document"]}, item, nonce=nonce)


def _event_log(_platform: str, name: str, item: Item) -> None:
    for bank in (item["expected"].get("pcr_banks") or {}).values():
        files = {"log": logs.raw(item), "pcrs": json.dumps(bank).encode()}
        _judge("event-log", files, item)
    logs.test_a_real_log_is_read_whole_and_packs_to_the_same_bytes(name)
    logs.test_a_real_log_replays_to_the_known_registers(name)


def _ccel(platform: str, name: str, item: Item) -> None:
    _event_log(platform, name, item)
    if registers := item["expected"].get("rtmr"):
        log = td_log.parse_log(logs.raw(item))
        td_log.verify_log(log, registers={int(n): bytes.fromhex(v) for n, v in registers.items()})


def _runtime_log(platform: str, _name: str, item: Item) -> None:
    """Replay a log in JSON to a quote's RTMRs; its notes say how runtime events are hashed."""
    answer = json.loads(evidence.read(platform, item, "JSON"))
    signed = verify_signatures(
        parse_quote(bytes.fromhex(answer["quote"])), roots=intel.ROOTS, now=TIMELESS
    )
    events, digests = json.loads(answer["event_log"]), {n: [] for n in range(4)}
    assert len(events) == item["values"]["n_events"]
    for event in events:
        payload = bytes.fromhex(event["event_payload"])
        text = event["event_type"].to_bytes(4, "little") + b":" + event["event"].encode() + b":"
        made = bytes.fromhex(event["digest"]) or sha384(text + payload).digest()
        digests[event["imr"]].append(made)
    body = signed.quote.body
    assert isinstance(body, TdReport10)
    for number, value in item["values"]["rtmr"].items():
        assert getattr(body, f"rtmr{number}").hex() == value
        assert rtmr.predict(digests[int(number)]).hex() == value


def _windows_quote(platform: str, _name: str, item: Item) -> None:
    """Verify a quote of the SHA-1 bank: refused as such, and authentic for who gives a reason."""
    values = item["values"]
    pcrs = {int(n): bytes.fromhex(v) for n, v in values["pcrs_sha1"].items()}
    parts = _given(
        platform, item, quote="tpms_attest", signature="tpmt_signature", ak="TPMT_PUBLIC"
    )
    nonce = {"nonce": _nonce(item)}
    registers = json.dumps(values["pcrs_sha1"]).encode()
    with pytest.raises(Untrusted, match="SHA-1"):
        _judge("tpm-quote", {**parts, "pcrs": registers}, item, **nonce)
    ak = forms.parse_ak(parts["ak"])
    assert isinstance(ak, quote.Public)
    found = quote.verify(
        parts["quote"], signature=parts["signature"], ak_public=ak, qualifying_data=_nonce(item),
        bank=Alg.SHA1, pcrs=pcrs, insecure_sha1_reason="a published vector",
    )  # fmt: skip
    log = EventLog.parse(evidence.read(platform, item, "log"))
    logged = {int(n) for n in values["log"]["replay"]["sha1"]}
    given = {n: v for n, v in found.claims.pcrs.items() if n in logged}
    verify_log(log, bank=Alg.SHA1, pcrs=given)


def _attest(platform: str, _name: str, item: Item) -> None:
    data, values = evidence.read(platform, item, "tpms_attest"), item["values"]["tpms_attest"]
    found = Attest.parse(data)
    assert found.pack() == data
    assert found.extra_data.hex() == values["extra_data"]
    assert found.clock_info.reset_count == values["reset_count"]
    assert found.pcr_digest.hex() == values["pcr_digest"]


def _tpm2_tools(platform: str, _name: str, item: Item) -> None:
    given = _given(platform, item, quote="quote.out", signature="quotesig", ak="ak.pub")
    raw = evidence.read(platform, item, "quotepcr")
    # tpm2-tools before 5.3: TPML_PCR_SELECTION (132 bytes), count, TPML_DIGEST of 66-byte entries
    numbers = Attest.parse(given["quote"]).pcr_select[0].pcrs
    entries = [raw[140 + 66 * i + 2 : 140 + 66 * i + 34] for i in range(len(numbers))]
    pcrs = {str(n): v.hex() for n, v in zip(numbers, entries, strict=True)}
    given["pcrs"] = json.dumps(pcrs).encode()
    assert _pcrs(_judge("tpm-quote", given, item, nonce=_nonce(item))) == pcrs


def _ima(platform: str, name: str, item: Item) -> None:
    ima.test_a_published_list_replays_to_its_published_register(name)
    registers = json.dumps({"10": item["values"]["pcr10_sha1"]}).encode()
    given = {"list": evidence.read(platform, item, "list"), "pcrs": registers}
    assert _judge("ima", given, item).claims["entries"] == item["values"]["entries"]


_BY_KIND: tuple[tuple[str, str, Procedure], ...] = (
    ("amd-snp", "crl", _snp_list),
    ("amd-snp", r"report-v\d\+.*", _snp_report),
    ("amd-snp", "VCEK chain.*", _snp_chain),
    ("intel-tdx", r"(TDX|SGX) quote v\d.*", _tdx_quote),
    ("intel-tdx", "collateral .*", _tdx_collateral),
    ("intel-tdx", "TCB info, signature invalid", _tdx_statement),
    ("azure", "Azure SNP evidence.*", _azure_snp),
    ("azure", "Azure TDX evidence.*", _azure_tdx),
    ("azure", "HCL report", _azure_hcl),
    ("azure", r"vTPM quote \+ AK PEM", _azure_quote),
    ("azure", "vTPM AK certificate.*", _azure_ak),
    ("gcp", "GCE [AE]K certificate", _gce_certificate),
    ("gcp", "GCE vTPM attestation .*", _gce_banks),
    ("gcp", "GCE vTPM quote .*", _gce_quote),
    ("aws", "root", _root),
    ("aws", "Nitro.* attestation document.*", _nitro),
    ("tpm-eventlog", "TCG event log.*", _event_log),
    ("tpm-eventlog", "CCEL .*", _ccel),
    ("tpm-eventlog", r"TPM 2\.0 quote .*", _windows_quote),
    ("tpm-eventlog", r"TDX quote \+ JSON event log.*", _runtime_log),
    ("tpm-quote", "TPMS_ATTEST parse vector", _attest),
    ("tpm-quote", "tpm2-tools quote files", _tpm2_tools),
    ("ima", "IMA .*", _ima),
    (".*", "root-chain", _root_chain),
)


_REFUSES = (_snp_report, _tdx_statement)
"""Procedures that look at the expected verdict themselves; any other one wants to accept."""


def procedure_of(platform: str, kind: str) -> Procedure | None:
    """Give the procedure of a kind; None: it is not known."""
    fits = (p for where, what, p in _BY_KIND
            if re.fullmatch(where, platform) and re.fullmatch(what, kind))  # fmt: skip
    return next(fits, None)


def run(procedure: Procedure, platform: str, name: str, item: Item) -> None:
    """Run a procedure; an item that must be refused must fail in it by a verdict."""
    if item["expected"]["verdict"] != "reject" or procedure in _REFUSES:
        procedure(platform, name, item)
        return
    with pytest.raises((Untrusted, FormatError, Rejected)):
        procedure(platform, name, item)
