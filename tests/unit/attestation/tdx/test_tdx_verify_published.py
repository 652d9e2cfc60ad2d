"""Another verifier says of every published quote what we say, and the root is the published one.

What else is known of published quotes is tried by `tests/evidence`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dcap_qvl
import pytest

from constellation.attestation.roots.intel import ROOTS, SGX_ROOT_CA
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.pck import load_certificate, split_pem
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tdx.verify import verify
from constellation.base.errors import Untrusted
from tests.vectors import evidence

ITEMS = evidence.items("intel-tdx")
QUOTES = [n for n in ITEMS if n.startswith("quote-")]
CASES = [(n, c) for n in QUOTES for c in ITEMS[n]["expected"].get("cases", ())]


def bundle(name: str) -> Collateral:
    item = ITEMS[f"collateral-{name}"]
    return Collateral.parse(evidence.read("intel-tdx", item, "bundle"))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def quote_of(name: str) -> bytes:
    return evidence.read("intel-tdx", ITEMS[name], "quote")


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


def test_the_pinned_root_is_the_published_one() -> None:
    pem = (evidence.folder() / "intel-tdx/collateral/intel_sgx_root_ca.pem").read_bytes()
    assert split_pem(pem, what="root") == (SGX_ROOT_CA,)
    assert load_certificate(SGX_ROOT_CA, what="root").subject.rfc4514_string()
