"""What a node keeps of its policy: whole or not at all, and with it what others judge it by."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import FormatError, Unavailable
from constellation.services.kept_policy import KeptPolicy
from constellation.trust.policy_acceptance import OfferedPolicy, SignedAcceptance
from tests.fakes.cluster_machines import OURS

if TYPE_CHECKING:
    from pathlib import Path

SAID = SignedAcceptance(acceptance=b"said", signature=b"signature")


@pytest.fixture
def kept(tmp_path: Path) -> KeptPolicy:
    return KeptPolicy(state=tmp_path, document=OURS.document)


def offer(serial: int, chain: bytes = b"chain") -> OfferedPolicy:
    return OfferedPolicy(signed=OURS.policy(serial=serial), chain=chain, accepted=SAID)


def test_a_judged_policy_comes_back_with_chain_and_acceptance(kept: KeptPolicy) -> None:
    with pytest.raises(Unavailable):
        kept.offered()
    first = OURS.policy(serial=1)
    kept.keep_first(first)
    assert kept.offered() == OfferedPolicy(signed=first)
    for serial in (2, 3):
        given = offer(serial, chain=f"chain {serial}".encode())
        kept.keep(given)
        assert kept.offered() == given
        assert kept.verified().serial == serial
    assert len(list((kept.state / "policy").iterdir())) == 2  # nothing of the older ones is left


def test_a_crash_between_the_two_files_leaves_the_old_policy_with_its_own_chain(
    kept: KeptPolicy,
) -> None:
    old, new = offer(2), offer(3, chain=b"of the new one")
    kept.keep(old)
    text = (kept.state / "policy" / "policy.json").read_bytes()
    kept.keep(new)
    # as if the power had gone after the first of the two files
    (kept.state / "policy" / "policy.json").write_bytes(text)
    assert kept.offered() == dataclasses.replace(old, chain=b"", accepted=None)
    kept.keep(new)
    assert kept.offered() == new


def test_a_chain_file_that_is_none_is_refused(kept: KeptPolicy) -> None:
    kept.keep(offer(2))
    (taken,) = (kept.state / "policy").glob("taken-*.json")
    taken.write_bytes(b"{}")
    with pytest.raises(FormatError):
        kept.offered()
