"""dcap-qvl, an independent verifier, says the same of every published quote with all collateral."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dcap_qvl
import pytest

from constellation.attestation.roots import intel
from constellation.attestation.tdx.endorsements import Collateral
from constellation.attestation.tdx.quote import parse_quote
from constellation.attestation.tdx.verify import verify
from constellation.base.errors import FormatError, Untrusted
from tests.vectors import evidence

ITEMS = evidence.items("intel-tdx")
QUOTES = [i for i in ITEMS if i.startswith("quote-")]
COLLATERAL = [i for i in ITEMS if i.startswith("collateral-")]
# what it has no policy for: rules of ours refuse these, `verify` says that they are authentic
RULES_OF_ITS_OWN = ("Debug mode", "SEPT_VE_DISABLE", "service TD", "Reserved bits")
Verdict = tuple[str, tuple[str, ...]] | None


def ours(quote: bytes, collateral: bytes, now: datetime) -> Verdict:
    try:
        given = Collateral.parse(collateral)
        tcb = verify(parse_quote(quote), collateral=given, roots=intel.ROOTS, now=now).claims.tcb
    except (FormatError, Untrusted):
        return None
    return str(tcb.status), tcb.advisories


def theirs(quote: bytes, collateral: bytes, now: datetime) -> Any:
    given = dcap_qvl.QuoteCollateralV3.from_json(collateral.decode())
    try:
        found = dcap_qvl.verify(quote, given, int(now.timestamp()))
    except ValueError as error:
        return str(error)
    return found.status, tuple(sorted(found.advisory_ids))


@pytest.mark.parametrize("quote", QUOTES)
def test_an_independent_verifier_agrees_on_a_quote_with_all_collateral(quote: str) -> None:
    data = evidence.read("intel-tdx", ITEMS[quote], "quote")
    for name in COLLATERAL:
        item = ITEMS[name]
        collateral = evidence.read("intel-tdx", item, "bundle")
        now = datetime.fromisoformat(item["verify_at"])
        found, expected = ours(data, collateral, now), theirs(data, collateral, now)
        if isinstance(expected, str):
            by_rule = any(rule in expected for rule in RULES_OF_ITS_OWN)
            assert found is None or by_rule, f"{name}: {found}, {expected}"
        else:
            assert found == expected, name
