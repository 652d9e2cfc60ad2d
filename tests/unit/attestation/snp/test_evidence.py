"""Published reports of real chips, and edits of them, get the verdict that their sources give."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from constellation.attestation.roots import amd
from constellation.attestation.snp import (
    Endorsements,
    Line,
    Product,
    SigningKey,
    Tcb,
    appraise,
    claims,
    default_policy,
    parse_report,
    verify,
    verify_chain,
)
from constellation.attestation.snp.endorsements import vek_facts
from constellation.attestation.snp.verify import verify_intermediate
from constellation.base.errors import FormatError, Rejected, Untrusted
from constellation.crypto.certificate import Certificate, RevocationList
from constellation.crypto.der import from_pem_or_der
from tests.vectors import evidence

ITEMS = evidence.items("amd-snp")
REPORTS = sorted(i for i, item in ITEMS.items() if item["kind"].startswith("report"))
AZURE = evidence.items("azure")
ON_AZURE = sorted(i for i, item in AZURE.items() if "snp_report" in item["values"])
MUTATIONS = {m["id"]: m for m in evidence.mutations("amd-snp")}
P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
# what an entry's words mean among our errors; an edit may be caught by an earlier check of the same
# report, so every entry names all that may be first
ERRORS = {
    "signature": (Untrusted, "signature|chip id|TCB|signed by|of a|wrong key"),
    "unsupported": (FormatError, "unsupported version"),
    "unsupported signature algorithm": (Untrusted, "unsupported signature algorithm"),
    "too short": (FormatError, "want 1184"),
    "wrong key type": (Untrusted, "wrong key type"),
    "chain": (Untrusted, "chain|issuer"),
    "parse": (FormatError, "left over"),
    "not yet valid": (Untrusted, "not yet valid"),
    "expired": (Untrusted, "expired"),
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def certificate_of(item: dict[str, Any], platform: str = "amd-snp") -> bytes:
    roles = {f.get("role") for f in item["files"]}
    return evidence.read(platform, item, "vlek" if "vlek" in roles else "vcek")


def judge(report: bytes, vek: bytes, now: datetime, **more: bytes | None) -> Any:
    endorsements = Endorsements(vek=vek, **more)  # type: ignore[arg-type] # crl or intermediate
    return verify(parse_report(report), endorsements=endorsements, roots=amd.ARKS, now=now)


def reference_policy(report: dict[str, Any], authentic: Any, **changed: Any) -> Any:
    """Give the default policy with what the entry says as reference values, without CRL."""
    raw = authentic.claims.report
    minimum = changed.pop("minimum", Tcb(fmc=0, bootloader=0, tee=0, snp=0, microcode=0))
    made = default_policy(
        report_data=bytes.fromhex(report.get("report_data", raw.report_data.hex())),
        measurements=(changed.pop("measurement", bytes.fromhex(report["measurement"])),),
        host_data=bytes.fromhex(report["host_data"]),
        minimum_tcb=dict.fromkeys(Line, minimum),
        signing_key=SigningKey(report["signing_key"]),
        csp_ids=(authentic.claims.csp_id,),
    )
    found = claims(authentic)
    # the entries of before 2025 are of machines without the check of memory modules
    old = {"platform_info.alias_check_complete": made["platform_info.smt_en"]}
    without_list = dict.fromkeys(("crl.present", "crl.current"), made["platform_info.smt_en"])
    return {**made, **without_list, **(old if found["report_version"] == 2 else {})}


@pytest.mark.parametrize("item_id", REPORTS)
def test_a_published_report_gets_its_verdict(item_id: str) -> None:
    item = ITEMS[item_id]
    report, vek = evidence.read("amd-snp", item, "report"), certificate_of(item)
    now, expected = at(item["verify_at"]), item["expected"]
    if expected["verdict"] == "reject":
        with pytest.raises(Untrusted, match="VCEK certificate: chain"):
            judge(report, vek, now)
        return
    authentic = judge(report, vek, now)
    policy = reference_policy(item["values"]["report"], authentic)
    if "policy_reject" in expected:
        with pytest.raises(Rejected) as refused:
            appraise(authentic, policy=policy)
        (only,) = refused.value.findings
        assert only.startswith(("policy.debug", "vmpl"))
    else:
        appraise(authentic, policy=policy)


@pytest.mark.parametrize("item_id", ON_AZURE)
def test_a_report_inside_of_azures_evidence_is_authentic(item_id: str) -> None:
    item = AZURE[item_id]
    blob = evidence.read("azure", item, "hcl_report")
    report = blob[32 : 32 + 1184]  # behind the HCL header
    authentic = judge(report, certificate_of(item, "azure"), at(item["verify_at"]))
    same_values(authentic, item["values"]["snp_report"])
    appraise(authentic, policy=reference_policy(item["values"]["snp_report"], authentic))


def same_values(authentic: Any, values: dict[str, Any]) -> None:  # noqa: C901 - one a field
    endorsed, found = authentic.claims, claims(authentic)
    report = endorsed.report
    for name in ("report_data", "measurement", "host_data", "id_key_digest", "author_key_digest",
                 "report_id", "report_id_ma", "family_id", "image_id"):  # fmt: skip
        if name in values:
            assert getattr(report, name).hex() == values[name], name
    # manifests print the chip id of a Turin in its 8 bytes
    assert report.chip_id.hex().rstrip("0") == values["chip_id"].rstrip("0")
    for name in ("version", "guest_svn", "vmpl", "signature_algo"):
        assert getattr(report, name) == values[name], name
    for name in ("policy", "platform_info", "key_info", "launch_mit_vector", "current_mit_vector"):
        if name in values:
            assert getattr(report, name) == int(values[name], 16), name
    for bit in ("smt", "migrate_ma", "debug", "single_socket"):
        assert found[f"policy.{bit}"] == int(values[f"policy_{bit}"])
    for which in ("current", "reported", "committed", "launch"):
        tcb = endorsed.tcb(which)
        assert getattr(report, f"{which}_tcb").hex() == values[f"{which}_tcb"]["raw"]
        for part in ("bootloader", "tee", "snp", "microcode"):
            assert getattr(tcb, part) == values[f"{which}_tcb"][part]
    for which in ("current_version", "committed_version"):
        build, minor, major = getattr(report, which)
        assert f"{major}.{minor}.{build}" == values[which]
    if values["cpuid"]:
        assert values["cpuid"] == {n: found[f"cpuid.{n}"] for n in ("family", "model", "stepping")}
        assert endorsed.product == values["product"]
    for part in ("r", "s"):
        number = int.from_bytes(getattr(report, f"signature_{part}"), "little")
        assert f"{number:096x}" == values[f"signature_{part}"]


def same_certificate(vek: bytes, values: dict[str, Any]) -> None:
    parsed = Certificate.parse(vek, what="VEK")
    facts = vek_facts(parsed)
    assert parsed.serial == int(values["serial"], 16)
    assert parsed.not_before == at(values["not_before"])
    assert parsed.not_after == at(values["not_after"])
    assert (facts.product_name, facts.struct_version) == (
        values["product_name"],
        values["struct_version"],
    )
    for part in ("bootloader", "tee", "snp", "microcode", "fmc"):
        assert getattr(facts.tcb, part) == (values[part] or 0), part
    assert facts.hwid.hex() == (values["hwid"] or "")
    assert facts.csp_id == (values["csp_id"] or "")
    assert f"CN={parsed.issuer_name()}," in values["issuer"] + ","


@pytest.mark.parametrize("item_id", REPORTS)
def test_parsed_fields_are_the_published_ones(item_id: str) -> None:
    item = ITEMS[item_id]
    same_certificate(certificate_of(item), item["values"]["vek"])
    if item["expected"]["verdict"] == "accept":
        report = evidence.read("amd-snp", item, "report")
        authentic = judge(report, certificate_of(item), at(item["verify_at"]))
        same_values(authentic, item["values"]["report"])


def test_a_turin_certificate_has_its_layout() -> None:
    item = ITEMS["turin-vcek-chain-only"]
    vek = certificate_of(item)
    chain = verify_chain(Endorsements(vek=vek), roots=amd.ARKS, now=at(item["verify_at"]))
    assert chain.facts.product is Product.TURIN
    same_certificate(vek, item["values"]["vek"])


@pytest.mark.parametrize("product", ["milan", "genoa", "turin"])
def test_the_roots_that_we_carry_are_the_published_ones(product: str) -> None:
    item, name = ITEMS[f"roots-{product}"], product.title()
    published = [
        from_pem_or_der((evidence.folder() / "amd-snp" / f["file"]).read_bytes(),
                        label="CERTIFICATE", what=f["file"])
        for f in item["files"]
    ]  # fmt: skip
    ark, ask, asvk = published
    assert ark in amd.ARKS
    assert amd.INTERMEDIATES[f"SEV-{name}"] == ask
    assert amd.INTERMEDIATES[f"SEV-VLEK-{name}"] == asvk
    for kind, data in zip(("ARK", "ASK", "ASVK"), published, strict=True):
        assert hashlib.sha256(data).hexdigest() == amd.SHA256[f"{kind}-{name}"]
    now = at(item["verify_at"])
    for data, values in ((ask, item["values"]["ask"]), (asvk, item["values"]["asvk"])):
        intermediate, root = verify_intermediate(data, roots=amd.ARKS, now=now)
        assert intermediate.serial == int(values["serial"], 16)
        assert intermediate.not_after == at(values["not_after"])
        assert intermediate.common_name() == values["subject_cn"]
        assert hashlib.sha256(root.der).hexdigest() == item["values"]["ark"]["sha256"]


def test_the_published_list_says_what_its_entry_says() -> None:
    item = ITEMS["crl-milan"]
    raw = (evidence.folder() / "amd-snp" / item["files"][0]["file"]).read_bytes()
    parsed = RevocationList.parse(raw, what="CRL")
    assert parsed.this_update == at(item["values"]["this_update"])
    assert parsed.next_update == at(item["values"]["next_update"])
    assert parsed.revoked == frozenset(item["values"]["revoked"])
    good = ITEMS["milan-v5-vcek-gcp"]
    report, vek = evidence.read("amd-snp", good, "report"), certificate_of(good)
    for now, current in (("2026-01-15T00:00:00Z", True), ("2026-05-13T00:00:00Z", False)):
        assert judge(report, vek, at(now), crl=raw).claims.crl_current is current


def mutated(item: dict[str, Any], mutation: dict[str, Any]) -> tuple[bytes, bytes, datetime]:
    report, vek = evidence.read("amd-snp", item, "report"), certificate_of(item)
    now = at(item["verify_at"])
    of_report = mutation.get("file") == "report.bin"
    data = bytearray(report if of_report else vek)
    for op in mutation["ops"]:
        match op["op"]:
            case "xor":
                data[op["offset"]] ^= op["mask"]
            case "set":
                new = bytes.fromhex(op["hex"])
                data[op["offset"] : op["offset"] + len(new)] = new
            case "zero":
                data[op["offset"] : op["offset"] + op["length"]] = bytes(op["length"])
            case "truncate":
                del data[op["length"] :]
            case "append":
                data += bytes.fromhex(op["hex"])
            case "negate_s":
                s = int.from_bytes(data[744:816], "little")
                data[744:816] = (P384_ORDER - s).to_bytes(72, "little")
            case "replace":
                # the manifest's own name of the file differs from the edit's in one entry
                name = op["with_"].replace("genoa-v3-vcek-ms", "genoa-v3-vcek-azure")
                data = bytearray((evidence.folder() / "amd-snp" / name).read_bytes())
            case "verify_at":
                now = at(op["time"])
            case other:
                raise AssertionError(other)
    return (bytes(data), vek, now) if of_report else (report, bytes(data), now)


def expected_error(text: str) -> tuple[type[Exception], str]:
    for words in sorted(ERRORS, key=len, reverse=True):
        if re.search(words, text):
            return ERRORS[words]
    raise AssertionError(text)


EDITS = sorted(
    i for i, m in MUTATIONS.items() if m["at"] in ("report", "certificate", "time")
    and m["base"] != "crl-milan"
)  # fmt: skip


@pytest.mark.parametrize("mutation_id", EDITS)
def test_an_edit_gets_its_verdict(mutation_id: str) -> None:
    mutation = MUTATIONS[mutation_id]
    report, vek, now = mutated(ITEMS[mutation["base"]], mutation)
    verdict = mutation["expected"]["verdict"]
    if verdict == "accept":
        judge(report, vek, now)
    elif verdict.startswith("strict"):
        with pytest.raises(FormatError, match="reserved byte"):
            judge(report, vek, now)
    elif mutation_id.endswith("high-padding"):
        with pytest.raises((Untrusted, FormatError)):
            judge(report, vek, now)
    elif mutation_id.endswith("vcek-serial"):
        # the edit is of the serial's tag, which no reader takes for a certificate
        with pytest.raises((Untrusted, FormatError), match="certificate"):
            judge(report, vek, now)
    else:
        error, words = expected_error(mutation["expected"]["error"])
        with pytest.raises(error, match=words):
            judge(report, vek, now)


POLICIES = {
    "debug-policy": ({}, r"policy\.debug: found 1"),
    "vmpl": ({}, "vmpl: found 1"),
    "min-tcb-ucode": (
        {"minimum": Tcb(fmc=0, bootloader=0, tee=0, snp=0, microcode=220)},
        r"reported_tcb\.microcode: found 219, expected at least 220",
    ),
    "wrong-measurement": ({"measurement": bytes(48)}, "measurement: found"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_refuses_what_its_entry_says(name: str) -> None:
    item = ITEMS[MUTATIONS[f"snp/policy/{name}"]["base"]]
    changed, why = POLICIES[name]
    report = evidence.read("amd-snp", item, "report")
    authentic = judge(report, certificate_of(item), at(item["verify_at"]))
    policy = reference_policy(item["values"]["report"], authentic, **changed)
    with pytest.raises(Rejected, match=why):
        appraise(authentic, policy=policy)


def test_a_stale_list_is_a_finding() -> None:
    mutation = MUTATIONS["snp/time/crl-stale-milan"]
    now = at(mutation["ops"][0]["time"])
    item = ITEMS["milan-v5-vcek-gcp"]
    crl = (evidence.folder() / "amd-snp/crl/milan_crl.der").read_bytes()
    report = evidence.read("amd-snp", item, "report")
    authentic = judge(report, certificate_of(item), now, crl=crl)
    policy = default_policy(
        report_data=bytes(64), measurements=(authentic.claims.report.measurement,)
    )
    with pytest.raises(Rejected) as refused:
        appraise(authentic, policy=policy)
    assert refused.value.findings == ("crl.current: found 0, expected 1",)


def test_every_edit_of_a_report_is_covered() -> None:
    covered = {*EDITS, *(f"snp/policy/{n}" for n in POLICIES), "snp/time/crl-stale-milan"}
    assert set(MUTATIONS) == covered
