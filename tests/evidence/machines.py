"""How is published evidence of clouds' machines judged: HCL reports, quotes, documents?"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from constellation.attestation import chain
from constellation.attestation.hcl.report import HclReport
from constellation.attestation.hcl.runtime_data import RuntimeData
from constellation.attestation.nitro import document as nitro
from constellation.attestation.roots import amd
from constellation.attestation.snp import Endorsements, parse_report, verify
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tpm.structures import Attest
from constellation.base.errors import Untrusted
from tests.evidence import chips, quotes
from tests.evidence.chips import Procedure, ask
from tests.evidence.folder import Case, at, same

if TYPE_CHECKING:
    from constellation.attestation.kinds import Verdict

__all__ = ["PROCEDURES", "quote_files", "same_attest", "same_registers"]

_BANKS = ("sha1", "sha256", "sha384", "sha512")


def nonce_of(case: Case) -> bytes:
    """Give what a quote or document was made for: what an edit asks for, or what the entry says."""
    if "nonce" in case.expect:
        found: bytes = case.expect["nonce"]
        return found
    if "nonce" in case.values:
        return bytes.fromhex(case.values["nonce"] or "")
    if "tpms_attest" in case.values:
        return bytes.fromhex(case.values["tpms_attest"]["extra_data"] or "")
    return Attest.parse(case.get("tpms_attest")).extra_data


def quote_files(case: Case) -> dict[str, bytes]:
    """Give the files of a quote, as far as there are any."""
    roles = {
        "quote": ("tpms_attest", "quote"),
        "signature": ("signature", "ecdsa", "rsa", "tpmt_signature"),
        "pcrs": ("pcrs",),
    }
    found = {ours: case.find(*theirs) for ours, theirs in roles.items()}
    return {role: data for role, data in found.items() if data is not None}


def same_registers(verdict: Verdict, values: dict[str, str] | None) -> None:
    """Compare registers."""
    claims = verdict.claims.items()
    found = {n[3:]: v.hex() for n, v in claims if n.startswith("pcr") and isinstance(v, bytes)}
    assert values is None or found == values


def same_attest(data: bytes, values: dict[str, Any]) -> None:
    """Compare the fields of a quote."""
    found = Attest.parse(data)
    assert found.pack() == data
    clock = found.clock_info
    same(
        values,
        magic=f"{found.magic:08x}",
        type=f"{found.type:04x}",
        qualified_signer=found.qualified_signer.hex(),
        extra_data=found.extra_data.hex(),
        clock=clock.clock,
        reset_count=clock.reset_count,
        restart_count=clock.restart_count,
        safe=int(clock.safe),
        firmware_version=f"{found.firmware_version:016x}",
        pcr_select=[[s.bank.name.lower(), list(s.pcrs)] for s in found.pcr_select],
        pcr_digest=found.pcr_digest.hex(),
    )


# --- Azure


def _judge_azure_snp(case: Case) -> Verdict:
    files = {"hcl_report": case.get("hcl_report"), "vcek": case.get("vcek")} | quote_files(case)
    how = {"nonce": nonce_of(case)} if "quote" in files else {}
    return ask(case, "azure-snp", files, crl=case.find("crl"), **how)


def _judge_azure_tdx(case: Case) -> Verdict:
    files = {"hcl_report": case.get("hcl_report"), "td_quote": case.get("td_quote")}
    return ask(case, "azure-tdx", files | quote_files(case), nonce=nonce_of(case))


def _judge_hcl(case: Case) -> Verdict:
    if case.find("vcek") is not None:
        return _judge_azure_snp(case)
    if case.find("td_quote") is not None and case.find("tpms_attest") is not None:
        return _judge_azure_tdx(case)
    return ask(case, "azure-hcl", {"hcl_report": case.get("hcl_report")})


def _compare_azure(case: Case, found: Verdict) -> None:
    values = case.values
    report = HclReport.parse(case.get("hcl_report"))
    runtime = RuntimeData.parse(report.runtime_data)
    modulus = runtime.ak.public_numbers().n.to_bytes(runtime.ak.key_size // 8, "big")
    keys = json.loads(report.runtime_data)["keys"]
    same(
        values,
        ak_modulus_sha256=hashlib.sha256(modulus).hexdigest(),
        runtime_data_user_data=runtime.user_data.hex(),
        runtime_keys=[[k["kid"], k["key_ops"]] for k in keys],
        tdreport_report_data=report.report_data.hex(),
    )
    same(
        values.get("hcl", {}),
        version=report.version,
        status=report.status,
        report_type=report.report_type.name,
        hash_type=report.hash_type.name,
        var_data_size=len(report.runtime_data),
        var_data_sha256=hashlib.sha256(report.runtime_data).hexdigest(),
    )
    _same_configuration(runtime, values.get("vm_configuration", {}))
    same_registers(found, values.get("pcrs_sha256"))
    if (data := case.find("runtime_data")) is not None:
        assert data == report.runtime_data
    if "tpms_attest" in values:
        same_attest(case.get("tpms_attest"), values["tpms_attest"])
    if (wanted := values.get("td_quote")) is not None:
        quote = parse_quote(case.get("td_quote"))
        same(wanted, version=quote.header.version)
        quotes.same_fields(quote.body, wanted.get("body", {}))
    if "snp_report" in values:
        authentic = verify(
            parse_report(report.chip_report),
            endorsements=Endorsements(vek=case.get("vcek")),
            roots=amd.ARKS,
            now=case.now,
        )
        chips.same_report(authentic, values["snp_report"])
        chips.same_certificate(case.get("vcek"), values.get("vcek", {}))


def _same_configuration(runtime: RuntimeData, values: dict[str, Any]) -> None:
    ours = runtime.configuration
    names = {"vmUniqueId": "vm_unique_id"}
    for name, value in values.items():
        mine = getattr(ours, names.get(name, name.replace("-", "_")), value)
        assert mine == value, name


def _judge_azure_ak(case: Case) -> Verdict:
    files = {"ak_certificate": case.get("ak cert")} | quote_files(case)
    if (more := case.find("chain", "intermediate")) is not None:
        files["chain"] = more
    how = {"nonce": nonce_of(case)} if "quote" in files else {}
    return ask(case, "azure-ak", files, **how)


def _compare_certificate(case: Case, _found: Any) -> None:
    raw, values = case.files[0].data, case.values
    certificate = chain.load_all(raw, what="certificate")[0]
    for name, ours in (
        ("not_before", certificate.not_valid_before_utc),
        ("not_after", certificate.not_valid_after_utc),
    ):
        assert ours == (at(values[name]) if name in values else ours), name
    for name in ("subject", "issuer"):
        said = values.get(name)
        assert said is None or said == getattr(certificate, name).rfc4514_string(), name
    if "trailing_bytes" in values:
        size = len(certificate.public_bytes(chain.Encoding.DER))
        assert len(raw) - size == values["trailing_bytes"]
    said = values.get("ext")
    assert said is None or {e.oid.dotted_string for e in certificate.extensions} == set(said)


# --- quotes by a bare key


def _judge_quote(case: Case) -> Verdict:
    files = quote_files(case) | {"ak": case.get("akpub", "ak.pub", "ak", "tpmt_public")}
    return ask(case, "tpm-quote", files, nonce=nonce_of(case))


def _compare_quote(case: Case, found: Verdict) -> None:
    same_registers(found, case.values.get("pcrs_sha256"))
    same_attest(case.get("tpms_attest", "quote"), case.values.get("tpms_attest", {}))


# --- Google


def _judge_gce_certificate(case: Case) -> Verdict:
    """Verify as what it is called; it must not pass for the other."""
    right, wrong = ("gce-ak", "gce-ek") if " AK " in case.item["kind"] else ("gce-ek", "gce-ak")
    files = {"certificate": case.files[0].data}
    found = ask(case, right, files)
    try:
        ask(case, wrong, files)
    except Untrusted as error:
        assert "it is not an" in str(error)  # noqa: PT017 - a refusal of the other kind
    else:
        raise AssertionError(f"passes for {wrong} as well")
    return found


def _same_instance(found: Verdict, values: dict[str, Any] | None) -> None:
    for name, value in (values or {}).items():
        if isinstance(value, dict):
            _same_instance(found, value)
            continue
        claim = found.claims.get("gce." + re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
        if claim is not None:
            text = claim.decode() if isinstance(claim, bytes) else str(claim)
            assert text == str(int(value) if isinstance(value, bool) else value), name


def _compare_gce(case: Case, found: Verdict) -> None:
    _same_instance(found, case.values.get("instance_info"))
    _compare_certificate(case, found)


def _bank_files(case: Case, bank: str) -> dict[str, bytes]:
    roles = {
        "quote": (f"tpms_attest {bank}",),
        "signature": (f"tpmt_signature {bank}", f"signature {bank}"),
        "pcrs": (f"pcrs {bank}",),
        "ak_certificate": ("ak_cert", "ak cert", "ak chain"),
        "event_log": ("tcg event log", "event log"),
    }
    found = {ours: case.find(*theirs) for ours, theirs in roles.items()}
    return {role: data for role, data in found.items() if data is not None}


def _judge_gce_banks(case: Case) -> dict[str, Verdict]:
    """Verify the quotes of all banks; SHA-1 is refused whatever it says."""
    banks = [b for b in _BANKS if case.find(f"tpms_attest {b}") is not None]
    assert banks, "no quote of any bank"
    found = {}
    # the one that is refused comes last: what is wrong with all shows before
    for bank in sorted(banks, key=lambda bank: bank == "sha1"):
        files = _bank_files(case, bank)
        if bank == "sha1":
            try:
                ask(case, "gce-vtpm", files, nonce=nonce_of(case))
            except Untrusted as error:
                assert "SHA-1 is not accepted" in str(error)  # noqa: PT017
            else:
                raise AssertionError("a quote of SHA-1 registers passes")
        else:
            found[bank] = ask(case, "gce-vtpm", files, nonce=nonce_of(case))
    return found


def _compare_gce_banks(case: Case, found: dict[str, Verdict]) -> None:
    for verdict in found.values():
        _same_instance(verdict, case.values.get("instance_info"))
    for quoted in case.values.get("quotes", ()):
        same_attest(case.get(f"tpms_attest {quoted['bank']}"), quoted["tpms_attest"])


def _judge_gce_quote(case: Case) -> Verdict:
    certificate = case.get("ak chain", "ak_cert", "ak cert")
    files = quote_files(case) | {"ak_certificate": certificate}
    if (log := case.find("tcg event log", "event log")) is not None:
        files["event_log"] = log
    return ask(case, "gce-vtpm", files, nonce=nonce_of(case))


def _compare_gce_quote(case: Case, found: Verdict) -> None:
    same_registers(found, case.values.get("pcrs_sha256"))
    _same_instance(found, case.values.get("instance_info"))
    same_attest(case.get("tpms_attest"), case.values.get("tpms_attest", {}))


# --- AWS


def _document(case: Case) -> bytes:
    return case.get("cose_sign1", "document")


def _judge_nitro(case: Case) -> Verdict:
    """Verify as what it is called; it must not pass for the other."""
    tpm = case.item["kind"].startswith("NitroTPM")
    right, wrong = ("nitro-tpm", "nitro-enclave") if tpm else ("nitro-enclave", "nitro-tpm")
    quote = quote_files(case) if tpm and case.find("tpms_attest") is not None else {}
    found = ask(case, right, {"document": _document(case)} | quote, nonce=nonce_of(case))
    try:
        ask(case, wrong, {"document": _document(case)}, nonce=nonce_of(case))
    except Untrusted as error:
        assert "expected" in str(error)  # noqa: PT017
    else:
        raise AssertionError(f"passes for {wrong} as well")
    return found


def _compare_nitro(case: Case, found: Verdict) -> None:
    values = case.values
    same_registers(found, values.get("pcrs"))
    parsed = nitro.parse(_document(case))
    same(
        values,
        timestamp_ms=parsed.timestamp_ms,
        module_id=parsed.module_id,
        pcr_field=str(parsed.kind),
    )
    for name in ("nonce", "user_data", "public_key"):
        assert name not in values or getattr(parsed, name).hex() == (values[name] or ""), name


PROCEDURES: tuple[tuple[str, str, Procedure], ...] = (
    (".*", "root-chain|root", chips.root_chain),
    (".*", "Azure SNP evidence.*", Procedure(_judge_azure_snp, _compare_azure)),
    (".*", "Azure TDX evidence.*", Procedure(_judge_azure_tdx, _compare_azure)),
    (".*", "HCL report.*", Procedure(_judge_hcl, _compare_azure)),
    (".*", "vTPM quote.*", Procedure(_judge_quote, _compare_quote)),
    (".*", "vTPM AK certificate.*", Procedure(_judge_azure_ak, _compare_certificate)),
    (".*", "GCE [AE]K certificate.*", Procedure(_judge_gce_certificate, _compare_gce)),
    (".*", "GCE vTPM attestation.*", Procedure(_judge_gce_banks, _compare_gce_banks)),
    (".*", "GCE vTPM quote.*", Procedure(_judge_gce_quote, _compare_gce_quote)),
    (".*", "Nitro.*", Procedure(_judge_nitro, _compare_nitro)),
)
"""Platform, kind (regular expressions), procedure."""
