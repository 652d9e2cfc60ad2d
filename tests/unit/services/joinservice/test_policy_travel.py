"""A JoinService that is behind fetches the newer policy itself, also if nobody brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Untrusted
from constellation.crypto.signing import generate_key
from constellation.rpc.stubs import join_pb2
from constellation.services.joinservice.policy_travel import PolicyTravel
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.policy_acceptance import OfferedPolicy
from tests.fakes.cluster_machines import OURS
from tests.fakes.join_world import SharedLog, ledger_of, write_another, write_control_plane

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.cluster_policy import SignedPolicy


async def behind(folder: Path, shown: SignedPolicy) -> PolicyTravel:
    """Give the JoinService of control plane 0, which obeys serial 1; the other shows `shown`."""
    files = write_control_plane(folder / "cp0", cluster=OURS)
    ledger = ledger_of(files, SharedLog())
    await write_another(folder / "cp1", files, ledger, index=1)

    async def ask(address: str, mine: join_pb2.PolicyStand) -> join_pb2.PolicyStand:
        assert (address, mine.serial, mine.policy) == ("127.0.0.2", 1, b"")
        return join_pb2.PolicyStand(
            serial=parse_policy(shown.policy).serial,
            policy=shown.policy,
            policy_signature=shown.signature,
        )

    return PolicyTravel(
        files.kept_policy(),
        own_name="control-plane-default-0",
        pinned_root=b"",  # the policies of this test follow no release
        join_key=files.join_key,
        membership=lambda: ledger.membership,
        ask=ask,
        access=bytes,
    )


async def test_it_takes_the_newer_policy_of_another(tmp_path: Path) -> None:
    travel = await behind(tmp_path, OURS.policy(serial=4))
    assert [o.serial for o in await travel.exchange()] == [4, 4]


async def test_it_takes_only_what_the_owner_signed(tmp_path: Path) -> None:
    forged = sign_policy(parse_policy(OURS.policy(serial=4).policy), generate_key())
    travel = await behind(tmp_path, forged)
    own, other = await travel.exchange()
    assert (own.serial, other.serial) == (1, 0)
    assert "signature" in other.problem
    with pytest.raises(Untrusted):
        travel.take(OfferedPolicy(signed=forged))
