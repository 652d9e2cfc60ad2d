"""The short form of `make flood`: a thousand bad connections, and nothing of them stays.

One target for each kind of server; the long form has them all (`results.json`).
"""

from __future__ import annotations

import pytest

from tests.flood.flood import findings, flood
from tests.flood.targets import TARGETS

pytestmark = pytest.mark.cluster

KINDS = (
    "init (9000)",
    "join (30090)",
    "verification (30081)",
    "verification by HTTP (30080)",
    "key and peer services (9090, 9091)",
    "local cloud's daemon (socket)",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_server_keeps_nothing_of_bad_connections_and_serves_the_honest(name: str) -> None:
    assert name in TARGETS
    outcome = flood(name, warm_up=1000, connections=1000)
    assert not findings(outcome), outcome
    assert outcome.honest >= 2
