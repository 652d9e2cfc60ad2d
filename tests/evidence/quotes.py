"""How are published TDX and SGX quotes and Intel's statements judged, and their fields compared?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from constellation.attestation import chain
from constellation.attestation.roots import intel
from constellation.attestation.tdx.appraise import claims as td_claims
from constellation.attestation.tdx.chain import verify_crl
from constellation.attestation.tdx.endorsements import Collateral, signed_json
from constellation.attestation.tdx.pck import load_certificate
from constellation.attestation.tdx.quote import EnclaveReport, TdReport10, TdReport15, parse_quote
from constellation.attestation.tdx.verify import verify, verify_collateral, verify_signatures
from constellation.base.errors import Untrusted
from constellation.crypto.certificate import RevocationList
from tests.evidence.changes import bundles
from tests.evidence.chips import Procedure, ask
from tests.evidence.folder import Case, at, same
from tests.evidence.reasons import REFUSALS, fits

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROCEDURES", "same_fields"]


def _judge_quote(case: Case) -> Any:
    data = case.get("quote")
    body = case.values.get("body", {})
    parsed = parse_quote(data)
    said = body.get("report_data")
    expected = bytes.fromhex(said) if said else parsed.body.report_data
    expected = case.expect.get("report_data", expected)
    # the reason that edits name is that of the signatures, so these come first
    signed = verify_signatures(parsed, roots=intel.ROOTS, now=case.now)
    ask(case, "tdx", {"quote": data}, report_data=expected)
    return signed


def _compare_quote(case: Case, signed: Any) -> None:
    quote, values = signed.quote, case.values
    header, body = quote.header, quote.body
    same(
        values,
        quote_version=header.version,
        tee=quote.tee.name,
        trailing_bytes=len(quote.trailing),
        trailing_all_zero=not any(quote.trailing),
    )
    same_fields(header, values.get("header", {}))
    same_fields(body, values.get("body", {}))
    same_fields(quote.signature.qe_report, values.get("qe_report", {}))
    pck = signed.pck
    names = {"pceid": "pce_id", "pcesvn": "pce_svn", "cpusvn": "cpu_svn", "comp_svns": "components"}
    said = {names.get(n, n): v for n, v in values.get("pck", {}).items()}
    same_fields(pck, {n: v for n, v in said.items() if hasattr(pck, n)})
    for case_of in case.expected.get("cases", ()):
        _one_status(case, quote, case_of)


def same_fields(ours: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        mine = getattr(ours, name)
        if isinstance(mine, bytes) and isinstance(value, str):
            assert mine.hex() == value.lower(), name
        elif isinstance(mine, int) and isinstance(value, str):
            # eight bytes that we read as a number, or a number in hexadecimal
            as_bytes = len(value) == 16 and mine.to_bytes(8, "little").hex() == value
            assert as_bytes or mine == int(value, 16), name
        elif isinstance(mine, tuple):
            assert list(mine) == value, name
        else:
            assert mine == value, name


def _one_status(case: Case, quote: Any, wanted: dict[str, Any]) -> None:
    """Verify a quote with one collateral at one time."""
    item = case.folder.named(case.platform, wanted["collateral"], also="collateral-")
    given = Collateral.parse(case.folder.case(case.platform, item).get("bundle"))
    now = at(wanted["verify_at"])
    if wanted["verdict"] == "reject":
        try:
            verify(quote, collateral=given, roots=intel.ROOTS, now=now)
        except REFUSALS as error:
            if fits(wanted.get("error", ""), error):
                return
            raise AssertionError(f"{wanted['collateral']}: {error}") from error
        raise AssertionError(f"{wanted['collateral']}: accepted, expected {wanted.get('error')}")
    verified = verify(quote, collateral=given, roots=intel.ROOTS, now=now)
    tcb = verified.claims.tcb
    same(
        wanted,
        tcb_status=tcb.status,
        platform_tcb_status=tcb.platform_status,
        qe_status=tcb.qe_status,
        advisories=list(tcb.advisories),
    )
    assert "tcb_date" not in wanted or tcb.date == at(wanted["tcb_date"])
    module = wanted.get("tdx_module_status")
    if module and module != ["n/a"]:
        assert [tcb.module_id, tcb.module_status] == module
    elif "tdx_module_status" in wanted:
        assert tcb.module_status is None
    if "policy_findings" in wanted:
        assert sorted(_findings(verified, quote)) == sorted(wanted["policy_findings"])


def _findings(verified: Any, quote: Any) -> list[str]:
    flags = td_claims(verified)
    if isinstance(quote.body, EnclaveReport):
        return ["enclave debug"] if flags["attributes.debug"] else []
    assert isinstance(quote.body, TdReport10)
    found = {
        "TD debug": flags["td_attributes.debug"],
        "SEPT_VE_DISABLE not set": not flags["td_attributes.sept_ve_disable"],
        "PKS/KL set": flags["td_attributes.pks"] or flags["td_attributes.kl"],
        "MRSERVICETD non-zero": isinstance(quote.body, TdReport15)
        and any(quote.body.mr_service_td),
    }
    return [name for name, is_so in found.items() if is_so]


def _judge_collateral(case: Case) -> Any:
    given = case.expect.get("collateral")
    parsed = Collateral.parse(case.get("bundle") if given is None else given)
    if "quote" in case.expect:
        quote = parse_quote(case.expect["quote"])
        return verify(quote, collateral=parsed, roots=intel.ROOTS, now=case.now)
    return verify_collateral(parsed, roots=intel.ROOTS, now=case.now)


def _compare_collateral(case: Case, found: Any) -> None:
    given, values = Collateral.parse(case.get("bundle")), case.values
    assert Collateral.parse(given.dump()) == given
    if (answer := case.find("tcbinfo")) is not None:
        wanted = given.tcb_info, given.tcb_info_signature
        assert signed_json(answer, name="tcbInfo") == wanted
    if (answer := case.find("qe identity")) is not None:
        assert signed_json(answer, name="enclaveIdentity")[0] == given.qe_identity
    tcb_info, qe_identity, _ = found
    assert tcb_info.fmspc.hex() == values.get("fmspc", tcb_info.fmspc.hex()).lower()
    levels = [
        {
            "sgx": list(level.sgx_components),
            "tdx": list(level.tdx_components),
            "pcesvn": level.pce_svn,
            "status": level.status,
            "date": f"{level.date:%Y-%m-%d}",
            "advisories": list(level.advisories),
        }
        for level in tcb_info.levels
    ]
    modules = [
        {"id": m.id, "levels": [[v.isv_svn, v.status] for v in m.levels]}
        for m in tcb_info.modules
        if m.id
    ]
    assert modules == (values.get("tdx_modules", modules) or [])
    same(
        values,
        tee=tcb_info.id,
        tcb_eval=tcb_info.tcb_evaluation_data_number,
        tcb_levels=levels,
        qe_levels=[[v.isv_svn, v.status] for v in qe_identity.levels],
        pck_crl_revoked=len(RevocationList.parse(given.pck_crl, what="PCK CRL").revoked),
    )


def _judge_statement(case: Case) -> None:
    """Verify an answer of Intel's service by the signing certificates of all collateral here."""
    (file,) = case.files
    name, field, what = (
        ("tcbInfo", "tcb_info", "TCB info")
        if b'"tcbInfo"' in file.data[:200]
        else ("enclaveIdentity", "qe_identity", "QE identity")
    )
    body, signature = signed_json(file.data, name=name)
    error: Untrusted | None = None
    for item, start in bundles(case):
        changed = replace(start, **{field: body, f"{field}_signature": signature})
        try:
            verify_collateral(changed, roots=intel.ROOTS, now=at(item["verify_at"]))
        except Untrusted as refused:
            error = refused
            if f"{what}: signature" not in str(refused):
                return  # the signature holds; it is of another time than the rest
            continue
        return
    assert error is not None, "no collateral with a signing certificate"
    raise error


def _judge_list(case: Case) -> None:
    """Verify a revocation list of Intel's by the authorities of the folder's chains."""
    (file,) = case.files
    error: Untrusted | None = None
    for issuer in _authorities(case):
        try:
            verify_crl(file.data, issuer=issuer, now=case.now, what="CRL")
        except Untrusted as refused:
            if error is None or "CRL: of " in str(error):
                error = refused  # one by its issuer says more than one by another
            continue
        return
    assert error is not None
    raise error


def _authorities(case: Case) -> Iterator[Any]:
    yield load_certificate(intel.SGX_ROOT_CA, what="root")
    for platform, item in case.folder.items():
        if item["kind"] == "root-chain" and platform == case.platform:
            for file in case.folder.case(platform, item).files:
                yield from chain.load_all(file.data, what=file.path)


PROCEDURES: tuple[tuple[str, str, Procedure], ...] = (
    (".*", r"(TDX|SGX) quote(?! \+ JSON).*", Procedure(_judge_quote, _compare_quote)),
    (".*", r"collateral.*", Procedure(_judge_collateral, _compare_collateral)),
    (".*", r"(TCB info|QE identity|TD_QE identity).*", Procedure(_judge_statement)),
    (".*", r"(PCK|[Rr]oot( CA)?|Intel) CRL.*", Procedure(_judge_list)),
)
"""Platform, kind (regular expressions), procedure."""
