"""Tests of constellation.rpc.errors: what a person reads survives the way over gRPC."""

import pytest

from constellation.base.errors import (
    Conflict,
    ConstellationError,
    FormatError,
    Rejected,
    Unavailable,
    Untrusted,
)
from constellation.rpc.errors import from_status, to_status


@pytest.mark.parametrize(
    "error",
    [
        FormatError("nonce: 3 bytes, want 32"),
        Untrusted("the chain does not hold", hint="fetch it again"),
        Rejected(("pcr4: found 00, expected 01", "pcr9: claim absent"), hint="rebuild"),
        Rejected(("only one",)),
        Unavailable("slow", hint="wait"),
        Conflict("not now"),
    ],
)
def test_kind_exit_code_message_findings_and_hint_survive(error: ConstellationError) -> None:
    told = from_status(to_status(error), who="node w-0")
    assert type(told) is type(error)
    assert told.exit_code == error.exit_code
    assert told.hint == error.hint
    if isinstance(error, Rejected):
        assert isinstance(told, Rejected)
        assert told.findings == tuple(f"node w-0: {f}" for f in error.findings)
    else:
        assert str(told) == f"node w-0: {error}"


def test_a_finding_with_a_line_break_stays_one_finding() -> None:
    told = from_status(to_status(Rejected(("a\nfinding: b\nhint: c",))), who="x")
    assert isinstance(told, Rejected)
    assert told.findings == ("x: a finding: b hint: c",)
    assert told.hint == ""
