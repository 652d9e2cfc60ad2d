"""Published reports pass the default policy, and the roots that we carry are the published ones.

What else is known of published evidence is tried by `tests/evidence`.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from constellation.attestation.roots import amd
from constellation.attestation.snp import (
    Endorsements,
    Line,
    SigningKey,
    Tcb,
    appraise,
    claims,
    default_policy,
    parse_report,
    verify,
)
from constellation.attestation.snp.verify import verify_intermediate
from constellation.base.errors import Rejected
from constellation.crypto.der import from_pem_or_der
from tests.vectors import evidence

ITEMS = evidence.items("amd-snp")
REPORTS = sorted(i for i, item in ITEMS.items() if item["kind"].startswith("report")
                 and item["expected"]["verdict"] == "accept")  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def authentic_of(item: dict[str, Any], **more: Any) -> Any:
    roles = {f.get("role") for f in item["files"]}
    vek = evidence.read("amd-snp", item, "vlek" if "vlek" in roles else "vcek")
    report = parse_report(evidence.read("amd-snp", item, "report"))
    now = at(more.pop("now", item["verify_at"]))
    endorsements = Endorsements(vek=vek, **more)
    return verify(report, endorsements=endorsements, roots=amd.ARKS, now=now)


def reference_policy(report: dict[str, Any], authentic: Any) -> Any:
    """Give the default policy with what the entry says as reference values, without CRL."""
    minimum = Tcb(fmc=0, bootloader=0, tee=0, snp=0, microcode=0)
    made = default_policy(
        report_data=bytes.fromhex(report["report_data"]),
        measurements=(bytes.fromhex(report["measurement"]),),
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
def test_a_published_report_passes_the_default_policy_unless_its_guest_is_weak(
    item_id: str,
) -> None:
    item = ITEMS[item_id]
    authentic = authentic_of(item)
    policy = reference_policy(item["values"]["report"], authentic)
    if "policy_reject" in item["expected"]:
        with pytest.raises(Rejected) as refused:
            appraise(authentic, policy=policy)
        (only,) = refused.value.findings
        assert only.startswith(("policy.debug", "vmpl"))
    else:
        appraise(authentic, policy=policy)


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


def test_a_stale_list_is_a_finding() -> None:
    crl = (evidence.folder() / "amd-snp/crl/milan_crl.der").read_bytes()
    authentic = authentic_of(ITEMS["milan-v5-vcek-gcp"], now="2026-05-13T00:00:00Z", crl=crl)
    measurement = authentic.claims.report.measurement
    policy = default_policy(report_data=bytes(64), measurements=(measurement,))
    with pytest.raises(Rejected) as refused:
        appraise(authentic, policy=policy)
    assert refused.value.findings == ("crl.current: found 0, expected 1",)
