"""Every published quote, with every published collateral of its platform, gets its verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import dcap_qvl
import pytest

from constellation.attestation.roots.intel import ROOTS, SGX_ROOT_CA
from constellation.attestation.tdx.appraise import claims
from constellation.attestation.tdx.endorsements import Collateral, signed_json
from constellation.attestation.tdx.pck import load_certificate, split_pem
from constellation.attestation.tdx.quote import TdReport10, TdReport15, parse_quote
from constellation.attestation.tdx.verify import verify, verify_collateral, verify_signatures
from constellation.base.errors import ConstellationError, FormatError, Untrusted
from tests.vectors import evidence

ITEMS = evidence.items("intel-tdx")
QUOTES = [n for n in ITEMS if n.startswith("quote-")]
BUNDLES = [n for n in ITEMS if n.startswith("collateral-")]
CASES = [(n, c) for n in QUOTES for c in ITEMS[n]["expected"].get("cases", ())]
MUTATIONS = {m["id"]: m for m in evidence.mutations("intel-tdx")}

# what an expected error is called here: class, and a part of the message
WHY: dict[str, tuple[type[ConstellationError], str]] = {
    "TCB level not supported (no matching TCB level)": (Untrusted, "TCB level not supported"),
    "PCK certificate not yet valid": (Untrusted, "PCK Certificate: not yet valid"),
    "version/TEE combination": (FormatError, "version 3 is for SGX"),
    "unsupported version": (FormatError, "version 6, want"),
    "unsupported attestation key type": (FormatError, "attestation key type 3"),
    "TEE type": (FormatError, "reserved byte"),  # the body is no enclave report
    "quote signature (and unknown QE vendor)": (Untrusted, "QE vendor"),
    "quote signature": (Untrusted, "quote by the attestation key: signature"),
    "quote signature (go-tdx-guest)": (Untrusted, "quote by the attestation key: signature"),
    "signature data length": (FormatError, "signature data"),
    "attestation key not on curve / quote signature": (Untrusted, "does not name this attestation"),
    "attestation key": (Untrusted, "does not name this attestation"),
    "unsupported certification data type": (FormatError, "certification data type is 1"),
    "certification data length": (FormatError, "certification data of"),
    "QE report signature": (Untrusted, "QE report by the PCK: signature"),
    "QE report signature; QE report data binding": (Untrusted, "QE report"),
    "QE report signature; binding": (Untrusted, "QE report"),
    "QE report data binding (sha256(ak||auth))": (Untrusted, "does not name this attestation"),
    "QE report data binding": (Untrusted, "does not name this attestation"),
    "unsupported PCK certificate form": (FormatError, "PCK certification data is 3"),
    "PCK certificate parse/chain": (FormatError, "PCK chain"),
    "truncated": (FormatError, "are left"),
    "body type/size mismatch (TDX 1.0 body is 584 bytes)": (FormatError, "TD_10 has 584"),
    "unknown body type": (FormatError, "body type 9"),
    "body size": (FormatError, "body of"),
    "size of certificate data is 0xf8a. Expected size 0x1045": (FormatError, "certification data"),
    "PCK certificate chain invalid": (FormatError, "PCK chain"),
    "root cert signature": (Untrusted, "none of the given roots"),
    "intermediate signature": (Untrusted, "Intel chain"),
    "PCK leaf signature": (ConstellationError, "PCK chain|Intel chain"),
    "TCB info signature": (Untrusted, "TCB info: signature"),
    "TCB info signature (the signature covers the exact bytes: re-serialising with spaces "
    "breaks it)": (Untrusted, "TCB info: signature"),
    "QE identity signature": (Untrusted, "QE identity: signature"),
    "QE identity id is QE, not TD_QE": (Untrusted, "QE identity: of 'QE'"),
    "FMSPC mismatch": (Untrusted, "FMSPC"),
    "TCB info id SGX for a TDX quote": (Untrusted, "TCB info: for SGX"),
    "PCK CRL of another CA": (Untrusted, "PCK CRL: of .*Processor"),
    "PCK CRL signature": (Untrusted, "PCK CRL: its issuer"),
    "root CRL signature": (Untrusted, "root CA CRL: its issuer"),
    "root CRL missing": (Untrusted, "root CA CRL is missing"),
    "collateral expired (nextUpdate 2025-07-19)": (Untrusted, "expired"),
    "collateral not yet valid": (Untrusted, "not yet valid"),
    "2023 collateral in 2026: TCB signing certificate expired, nextUpdate passed": (
        Untrusted,
        "expired",
    ),
}


def bundle(name: str) -> Collateral:
    item = ITEMS[f"collateral-{name}"]
    return Collateral.parse(evidence.read("intel-tdx", item, "bundle"))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def quote_of(name: str) -> bytes:
    return evidence.read("intel-tdx", ITEMS[name], "quote")


@pytest.mark.parametrize("name", QUOTES)
def test_signatures_of_a_published_quote_hold(name: str) -> None:
    signed = verify_signatures(
        parse_quote(quote_of(name)), roots=ROOTS, now=at(ITEMS[name]["verify_at"])
    )
    assert signed.pck.fmspc.hex() == ITEMS[name]["product"]


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{n}-{c['collateral']}" for n, c in CASES])
def test_a_published_quote_has_its_published_status(name: str, case: dict[str, Any]) -> None:
    quote, now = parse_quote(quote_of(name)), at(case["verify_at"])
    collateral = bundle(case["collateral"])
    if case["verdict"] == "reject":
        kind, message = WHY[case["error"]]
        with pytest.raises(kind, match=message):
            verify(quote, collateral=collateral, roots=ROOTS, now=now)
        return
    verified = verify(quote, collateral=collateral, roots=ROOTS, now=now)
    tcb = verified.claims.tcb
    assert tcb.status == case["tcb_status"]
    assert tcb.platform_status == case["platform_tcb_status"]
    assert tcb.qe_status == case["qe_status"]
    assert list(tcb.advisories) == case["advisories"]
    assert tcb.date == at(case["tcb_date"])
    module = case["tdx_module_status"]
    if module is None or module == ["n/a"]:
        assert tcb.module_status is None
    else:
        assert [tcb.module_id, tcb.module_status] == module
    flags = claims(verified)
    if isinstance(quote.body, TdReport10):
        found = {
            "TD debug": flags["td_attributes.debug"],
            "SEPT_VE_DISABLE not set": not flags["td_attributes.sept_ve_disable"],
            "PKS/KL set": flags["td_attributes.pks"] or flags["td_attributes.kl"],
            "MRSERVICETD non-zero": isinstance(quote.body, TdReport15)
            and any(quote.body.mr_service_td),
        }
    else:
        found = {"enclave debug": flags["attributes.debug"]}
    assert sorted(n for n, is_so in found.items() if is_so) == sorted(case["policy_findings"])


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{n}-{c['collateral']}" for n, c in CASES])
def test_another_verifier_says_the_same(name: str, case: dict[str, Any]) -> None:
    now = at(case["verify_at"])
    item = ITEMS[f"collateral-{case['collateral']}"]
    text = evidence.read("intel-tdx", item, "bundle").decode()
    theirs_only = ("Debug mode", "SEPT_VE_DISABLE", "MRSERVICETD")  # policy, to us
    try:
        theirs = dcap_qvl.verify(
            quote_of(name), dcap_qvl.QuoteCollateralV3.from_json(text), int(now.timestamp())
        )
    except ValueError as error:
        if any(words in str(error) for words in theirs_only):
            return
        with pytest.raises(Untrusted):
            verify(
                parse_quote(quote_of(name)),
                collateral=bundle(case["collateral"]),
                roots=ROOTS,
                now=now,
            )
        return
    ours = verify(
        parse_quote(quote_of(name)), collateral=bundle(case["collateral"]), roots=ROOTS, now=now
    ).claims.tcb
    assert (theirs.status, list(theirs.advisory_ids)) == (ours.status, list(ours.advisories))


@pytest.mark.parametrize("name", BUNDLES)
def test_published_collateral_has_the_published_fields(name: str) -> None:
    item = ITEMS[name]
    collateral = bundle(name.removeprefix("collateral-"))
    assert Collateral.parse(collateral.dump()) == collateral
    answer = evidence.read("intel-tdx", item, "tcbInfo")
    assert signed_json(answer, name="tcbInfo") == (
        collateral.tcb_info,
        collateral.tcb_info_signature,
    )
    answer = evidence.read("intel-tdx", item, "QE identity")
    assert signed_json(answer, name="enclaveIdentity")[0] == collateral.qe_identity
    tcb_info, qe_identity, _ = verify_collateral(collateral, roots=ROOTS, now=at(item["verify_at"]))
    values = item["values"]
    assert tcb_info.fmspc.hex() == values["fmspc"].lower()
    assert tcb_info.id == values["tee"]
    assert tcb_info.tcb_evaluation_data_number == values["tcb_eval"]
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
    assert levels == values["tcb_levels"]
    modules = [
        {"id": m.id, "levels": [[v.isv_svn, v.status] for v in m.levels]}
        for m in tcb_info.modules
        if m.id
    ]
    assert modules == (values["tdx_modules"] or [])
    assert [[v.isv_svn, v.status] for v in qe_identity.levels] == values["qe_levels"]


def test_the_pinned_root_is_the_published_one() -> None:
    pem = (evidence.folder() / "intel-tdx/collateral/intel_sgx_root_ca.pem").read_bytes()
    assert split_pem(pem, what="root") == (SGX_ROOT_CA,)
    assert load_certificate(SGX_ROOT_CA, what="root").subject.rfc4514_string()


def test_a_statement_whose_signature_was_published_wrong_is_refused() -> None:
    item = ITEMS["tcbinfo-badsig-90c06f000000"]
    answer = (evidence.folder() / "intel-tdx" / item["files"][0]["file"]).read_bytes()
    body, signature = signed_json(answer, name="tcbInfo")
    collateral = replace(bundle("tdx-b0c06f-2025-10"), tcb_info=body, tcb_info_signature=signature)
    with pytest.raises(Untrusted, match="TCB info: signature"):
        verify_collateral(collateral, roots=ROOTS, now=at(item["verify_at"]))


@pytest.mark.parametrize("name", [n for n, m in MUTATIONS.items() if "file" in m])
def test_a_changed_quote_is_refused_for_the_expected_reason(name: str) -> None:
    mutation = MUTATIONS[name]
    data = bytearray(quote_of(mutation["base"]))
    for op in mutation["ops"]:
        apply(data, op)
    kind, message = WHY[mutation["expected"]["error"]]
    with pytest.raises(kind, match=message):
        verify_signatures(
            parse_quote(bytes(data)),
            roots=ROOTS,
            now=at(ITEMS[mutation["base"]]["verify_at"]),
        )


@pytest.mark.parametrize("name", [n for n, m in MUTATIONS.items() if "with_quote" in m])
def test_changed_collateral_is_refused_for_the_expected_reason(name: str) -> None:
    mutation = MUTATIONS[name]
    (change,) = (o["change"] for o in mutation["ops"] if o["op"] == "collateral")
    (time,) = (o["time"] for o in mutation["ops"] if o["op"] == "verify_at")
    collateral = changed(bundle("tdx-b0c06f-2025-06"), change)
    quote = parse_quote(quote_of(mutation["with_quote"]))
    if mutation["expected"]["verdict"] == "either":
        verify(quote, collateral=collateral, roots=ROOTS, now=at(time))
        return
    kind, message = WHY[mutation["expected"]["error"]]
    with pytest.raises(kind, match=message):
        verify(quote, collateral=collateral, roots=ROOTS, now=at(time))


def test_every_published_edit_is_tried() -> None:
    assert all("file" in m or "with_quote" in m for m in MUTATIONS.values())


def apply(data: bytearray, op: dict[str, Any]) -> None:
    match op["op"]:
        case "xor":
            data[op["offset"]] ^= op["mask"]
        case "set":
            value = bytes.fromhex(op["hex"])
            data[op["offset"] : op["offset"] + len(value)] = value
        case "truncate":
            del data[op["length"] :]
        case _:
            raise AssertionError(op)


def changed(collateral: Collateral, change: str) -> Collateral:
    sgx, old = bundle("sgx-00a067-2025-06"), bundle("tdx-50806f-2023")
    other = bundle("tdx-90c06f-2025-06")

    def flipped(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    def tcb_info_of(theirs: Collateral) -> dict[str, bytes]:
        return {
            "tcb_info": theirs.tcb_info,
            "tcb_info_signature": theirs.tcb_info_signature,
            "tcb_info_issuer_chain": theirs.tcb_info_issuer_chain,
        }

    spaced = json.dumps(json.loads(collateral.tcb_info)).encode()
    leaf = collateral.tcb_info_issuer_chain.partition(b"-----END CERTIFICATE-----\n")
    changes: dict[str, dict[str, bytes]] = {
        "tcbinfo-body": {"tcb_info": collateral.tcb_info.replace(b"UpToDate", b"UpToDatE", 1)},
        "tcbinfo-reserialised": {"tcb_info": spaced},
        "tcbinfo-signature": {"tcb_info_signature": flipped(collateral.tcb_info_signature)},
        "qe-identity-signature": {
            "qe_identity_signature": flipped(collateral.qe_identity_signature)
        },
        "qe-identity-of-sgx": {
            "qe_identity": sgx.qe_identity,
            "qe_identity_signature": sgx.qe_identity_signature,
            "qe_identity_issuer_chain": sgx.qe_identity_issuer_chain,
        },
        "tcbinfo-other-fmspc": tcb_info_of(other),
        "tcbinfo-sgx-for-tdx": tcb_info_of(sgx),
        "pck-crl-processor-for-platform": {"pck_crl": sgx.pck_crl},
        "pck-crl-signature": {"pck_crl": flipped(collateral.pck_crl)},
        "root-crl-signature": {"root_ca_crl": flipped(collateral.root_ca_crl)},
        "root-crl-missing": {"root_ca_crl": b""},
        "tcb-chain-leaf-only": {"tcb_info_issuer_chain": b"".join(leaf[:2])},
        "stale-collateral": {},
        "future-collateral": {},
        "old-signing-cert-2026": {n: getattr(old, n) for n in Collateral.__slots__},
    }
    return replace(collateral, **changes[change])
