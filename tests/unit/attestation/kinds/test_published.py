"""Published evidence of the clouds, by kind; `tests/evidence` tries all of it with its edits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from constellation.attestation import kinds
from constellation.attestation.kinds import Given, Verdict
from constellation.attestation.policy import Exactly, Unchecked
from constellation.base.errors import (
    FormatError,
    Rejected,
    Untrusted,
    UserError,
)
from tests.vectors import evidence
from tests.vectors.edits import edited

AZURE, GCP, AWS = (evidence.items(name) for name in ("azure", "gcp", "aws"))
QUOTE = {"quote": "tpm_quote.msg", "signature": "tpm_quote.sig", "pcrs": "pcrs.json"}
SNP = {"hcl_report": "hcl_report.bin", "vcek": "vcek.der", **QUOTE}
TDX = {"hcl_report": "hcl_report.bin", "td_quote": "td_quote.bin", **QUOTE}
CHALLENGE = b"challenge"


def at(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["verify_at"])


def files(platform: str, folder: str, names: dict[str, str]) -> dict[str, bytes]:
    base = evidence.folder() / platform / folder
    return {role: (base / name).read_bytes() for role, name in names.items()}


def collateral() -> bytes:
    path = evidence.folder() / "intel-tdx"
    (item,) = [i for i in evidence.items("intel-tdx").values() if i["id"] == COLLATERAL]
    return (
        path / next(f["file"] for f in item["files"] if f["role"].startswith("bundle"))
    ).read_bytes()


COLLATERAL = "collateral-tdx-00806f-2025-07"


def judge(kind: str, given: dict[str, bytes], item: dict[str, Any], **how: Any) -> Verdict:
    arguments = {"files": given, "now": at(item)} | how
    return kinds.verify(kind, Given(**arguments), policy=None)


def pcrs_of(verdict: Verdict) -> dict[str, str]:
    found = verdict.claims.items()
    return {n[3:]: v.hex() for n, v in found if n.startswith("pcr") and isinstance(v, bytes)}


@pytest.mark.parametrize("name", [i for i in AZURE if i.startswith("snp-")])
def test_azure_snp_evidence_is_authentic_with_its_published_values(name: str) -> None:
    item = AZURE[name]
    nonce = bytes.fromhex(item["values"]["tpms_attest"]["extra_data"])
    found = judge("azure-snp", files("azure", name, SNP), item, nonce=nonce)
    assert pcrs_of(found) == item["values"]["pcrs_sha256"]
    assert found.claims["measurement"] == bytes.fromhex(item["values"]["snp_report"]["measurement"])
    said = item["values"]["vm_configuration"]["vmUniqueId"].encode()
    assert found.claims["azure.vm_unique_id"] == said
    assert any(line.startswith("revocation: ") for line in found.unchecked)


def test_an_azure_snp_report_without_a_quote_is_authentic_and_says_so() -> None:
    name = "hcl-snp-genoa-openpcc"
    given = files("azure", name, {"hcl_report": "hcl_report.bin", "vcek": "vcek.der"})
    found = judge("azure-snp", given, AZURE[name])
    assert any(line.startswith("vTPM: no quote") for line in found.unchecked)


@pytest.mark.parametrize("name", ["tdx-v0", "tdx-v1"])
def test_azure_tdx_evidence_is_authentic_with_its_published_values(name: str) -> None:
    item = AZURE[name]
    given = files("azure", name, TDX)
    found = judge("azure-tdx", given, item, nonce=CHALLENGE)
    assert pcrs_of(found) == item["values"]["pcrs_sha256"]
    assert found.claims["mr_td"] == bytes.fromhex(item["values"]["td_quote"]["body"]["mr_td"])
    assert any(line.startswith("collateral: none was given") for line in found.unchecked)
    # the published collateral of this platform is of some weeks later
    later = {"collateral": collateral(), "now": datetime(2025, 7, 22, 9, 13, 34, tzinfo=UTC)}
    whole = judge("azure-tdx", given, item, nonce=CHALLENGE, **later)
    assert whole.claims["tcb.status"] == b"OutOfDate"
    assert whole.claims["mr_td"] == found.claims["mr_td"]


@pytest.mark.parametrize("name", ["hcl-tdx-intel", "hcl-tdx-kinvolk"])
def test_an_hcl_report_alone_is_read_and_said_to_be_unsigned(name: str) -> None:
    found = judge("azure-hcl", files("azure", name, {"hcl_report": "hcl_report.bin"}), AZURE[name])
    assert "nothing was given that signs it" in found.unchecked[0]


def test_a_quote_of_an_azure_vtpm_by_a_bare_key() -> None:
    name = "vtpm-quote-kinvolk"
    item, given = AZURE[name], files("azure", name, QUOTE | {"ak": "akpub.pem"})
    assert (
        pcrs_of(judge("tpm-quote", given, item, nonce=CHALLENGE)) == item["values"]["pcrs_sha256"]
    )
    with pytest.raises(Untrusted, match="extraData"):
        judge("tpm-quote", given, item, nonce=bytes([1, 2, 3, 4]))
    reversed_signature = given | {"signature": given["signature"][::-1]}
    with pytest.raises(Untrusted, match="did not make"):
        judge("tpm-quote", reversed_signature, item, nonce=CHALLENGE)


def test_an_azure_ak_certificate_needs_its_intermediate() -> None:
    item, given = AZURE["akcert-01"], files("azure", "akcert", {"ak_certificate": "ak_01.der"})
    judge("azure-ak", given, item)
    padded = given["ak_certificate"].ljust(4096, b"\0")
    judge("azure-ak", {"ak_certificate": padded}, item)
    with pytest.raises(Untrusted, match="valid from"):
        judge("azure-ak", given, item, now=datetime(2027, 1, 1, tzinfo=UTC))
    roots = files("gcp", "ca", {"r": "gcp_ek_ak_ca_root.pem"})
    with pytest.raises(Untrusted, match="was not given"):
        judge("azure-ak", given, item, roots=(roots["r"],))


GCE_QUOTE = {"quote": "quote.msg", "signature": "quote.sig", "pcrs": "pcrs_sha256.json"}


def base_of(edit: dict[str, Any]) -> tuple[str, dict[str, bytes], dict[str, Any], dict[str, Any]]:
    name = edit["base"]
    match edit["platform"], name:
        case "azure", "tdx-v1":
            how: dict[str, Any] = {"nonce": CHALLENGE}
            return "azure-tdx", files("azure", name, TDX), AZURE[name], how
        case "azure", _:
            return "azure-snp", files("azure", name, SNP), AZURE[name], {"nonce": CHALLENGE}
        case "gcp", _:
            given = files("gcp", name, GCE_QUOTE | {"ak_certificate": "ak_chain.pem"})
            return (
                "gce-vtpm",
                given,
                GCP[name],
                {"nonce": bytes.fromhex(GCP[name]["values"]["nonce"])},
            )
        case _:
            nonce = bytes.fromhex(AWS[name]["values"]["nonce"])
            names = {"document": "document.cose"}
            return "nitro-tpm", files("aws", name, names), AWS[name], {"nonce": nonce}


def test_gce_quotes_of_all_but_the_sha1_bank_are_authentic() -> None:
    item = GCP["attest-gce-cos-85-no-nonce"]
    for bank in ("sha256", "sha384", "sha1"):
        names = {
            "quote": f"quote_{bank}.msg", "signature": f"quote_{bank}.tpmtsig",
            "pcrs": f"pcrs_{bank}.json", "ak_certificate": "ak_cert.der",
            "event_log": "event_log.bin",
        }  # fmt: skip
        given = files("gcp", "attest-gce-cos-85-no-nonce", names)
        if bank == "sha1":
            with pytest.raises(Untrusted, match="SHA-1 is not accepted"):
                judge("gce-vtpm", given, item, nonce=b"")
        else:
            found = judge("gce-vtpm", given, item, nonce=b"")
            assert found.claims["gce.instance_name"] == b"cos-test"
            assert not any(line.startswith("event log") for line in found.unchecked)


def test_a_gce_quote_with_its_chain_is_authentic() -> None:
    item = GCP["vtpm-gcp-amd"]
    kind, given, _, how = base_of({"platform": "gcp", "base": "vtpm-gcp-amd"})
    found = judge(kind, given, item, **how)
    assert pcrs_of(found) == item["values"]["pcrs_sha256"]


@pytest.mark.parametrize("name", [i for i in GCP if i.startswith("cert-")])
def test_gce_certificates_pass_for_what_they_are_only(name: str) -> None:
    item = GCP[name]
    (file,) = item["files"]
    given = {"certificate": (evidence.folder() / "gcp" / file["file"]).read_bytes()}
    right, wrong = ("gce-ek", "gce-ak") if "enc" in name else ("gce-ak", "gce-ek")
    assert judge(right, given, item).claims["gce.is_production"] == 1
    with pytest.raises(Untrusted, match="it is not an"):
        judge(wrong, given, item)


def test_nitro_documents_pass_for_what_they_are_only() -> None:
    for name, right, wrong in (
        ("nitrotpm-vaportpm", "nitro-tpm", "nitro-enclave"),
        ("nitro-enclave-nsm", "nitro-enclave", "nitro-tpm"),
    ):
        item = AWS[name]
        given = files("aws", name, {"document": "document.cose"})
        nonce = bytes.fromhex(item["values"]["nonce"] or "")
        assert pcrs_of(judge(right, given, item, nonce=nonce)) == item["values"]["pcrs"]
        with pytest.raises(Untrusted, match="expected"):
            judge(wrong, given, item, nonce=nonce)


def test_a_nitrotpm_document_vouches_for_the_quote_of_its_key() -> None:
    name = "nitrotpm-vaportpm"
    names = {"document": "document.cose", "quote": "quote.msg", "signature": "quote.sig"}
    given = files("aws", name, names | {"pcrs": "pcrs_sha384.json"})
    nonce = bytes.fromhex(AWS[name]["values"]["nonce"])
    judge("nitro-tpm", given, AWS[name], nonce=nonce)
    broken = given | {
        "signature": edited(given["signature"], [{"op": "xor", "offset": 10, "mask": 255}])
    }
    with pytest.raises((Untrusted, FormatError)):
        judge("nitro-tpm", broken, AWS[name], nonce=nonce)


def test_ima_lists_and_a_register() -> None:
    item = evidence.items("ima")["keylime-archive-ng"]
    given = {"list": evidence.read("ima", item, "list")}
    now = {"now": datetime(2026, 1, 1, tzinfo=UTC)}
    item = item | {"verify_at": "2026-01-01T00:00:00Z"}
    assert judge("ima", given, item, **now).claims["entries"] == 826
    pcrs = json.dumps({"10": item["values"]["pcr10_sha256"]}).encode()
    assert judge("ima", given | {"pcrs": pcrs}, item).claims["entries"] == 826
    shorter = b"\n".join(given["list"].split(b"\n")[:800])
    with pytest.raises(Untrusted, match="PCR 10 replays"):
        judge("ima", {"list": shorter, "pcrs": pcrs}, item)


def test_a_policy_without_a_rule_for_each_claim_refuses() -> None:
    kind, given, item, how = base_of({"platform": "aws", "base": "nitrotpm-vaportpm"})
    asked = Given(files=given, now=at(item), **how)
    claims = kinds.verify(kind, asked, policy=None).claims
    with pytest.raises(Rejected) as refused:
        kinds.verify(kind, asked, policy={})
    assert len(refused.value.findings) == len(claims)
    all_rules = {name: Unchecked("test") for name in claims}
    assert kinds.verify(kind, asked, policy=all_rules).appraised
    with pytest.raises(Rejected, match="pcr4: found"):
        kinds.verify(kind, asked, policy={**all_rules, "pcr4": Exactly(bytes(48))})


def test_nothing_is_verified_for_nobody() -> None:
    for name, kind in kinds.KINDS.items():
        given = Given(files=dict.fromkeys(kind.required, b""), now=datetime(2026, 1, 1, tzinfo=UTC))
        if kind.wants:
            with pytest.raises(UserError, match="is required"):
                kinds.verify(name, given, policy=None)
        elif name != "ima":  # an empty list is one
            with pytest.raises((FormatError, UserError)):
                kinds.verify(name, given, policy=None)
        with pytest.raises(UserError, match="is missing"):
            kinds.verify(name, Given(files={}, now=given.now), policy=None)
        with pytest.raises(UserError, match="role other"):
            kinds.verify(name, Given(files={"other": b""}, now=given.now), policy=None)
    with pytest.raises(UserError, match="expected one of"):
        kinds.verify("other", Given(files={}, now=datetime(2026, 1, 1, tzinfo=UTC)), policy=None)


@pytest.mark.parametrize("other", sorted(kinds.KINDS))
def test_a_document_of_one_kind_offered_as_another_is_refused(other: str) -> None:
    data = files("azure", "snp-v1-milan", {"hcl_report": "hcl_report.bin"})["hcl_report"]
    if other == "azure-hcl":
        return
    kind = kinds.KINDS[other]
    everything = {"nonce": b"", "report_data": bytes(64), "collateral": b"{}"}
    given = Given(
        files=dict.fromkeys(kind.required, data),
        now=datetime(2025, 6, 1, tzinfo=UTC),
        **{name: everything[name] for name in everything if name in kind.wants},
    )
    with pytest.raises((FormatError, Untrusted)):
        kinds.verify(other, given, policy=None)


@pytest.mark.parametrize("name", sorted(kinds.KINDS))
def test_an_option_that_nothing_would_look_at_is_refused(name: str) -> None:
    kind = kinds.KINDS[name]
    options: dict[str, Any] = {"nonce": b"n", "report_data": b"r", "collateral": b"c", "crl": b"l"}
    needed = {option: options[option] for option in kind.wants}
    options["roots"] = (b"root",)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    roles = dict.fromkeys(kind.required, b"")
    for option in options.keys() - set(kind.wants) - set(kind.takes):
        given = Given(files=roles, now=now, **needed, **{option: options[option]})
        with pytest.raises(UserError, match="would not look at it"):
            kinds.verify(name, given, policy=None)
    for option, role in kind.with_role.items():
        given = Given(files=roles, now=now, **needed, **{option: options[option]})
        with pytest.raises(UserError, match=f"without {role}=FILE"):
            kinds.verify(name, given, policy=None)
