"""Whoever has the owner key still cannot make a cluster run what no release names.

Real JoinServices, real aTLS and TLS. The attacker signs policies as the owner does and hands them
in as the engine does; each refusal leaves all three control planes with the policy they had.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base import clock
from constellation.base.errors import Rejected, Unavailable, Untrusted
from constellation.services.joinservice import server as server_module
from constellation.trust.cluster_policy import parse_policy
from constellation.trust.policy_acceptance import of_offer, sign_acceptance
from tests.fakes.cluster_machines import IMAGE, machine, release_of
from tests.fakes.policy_world import NEXT, Owned, owned_cluster
from tests.fakes.tpm import NOW
from tests.fakes.upgrade_world import Upgrades
from tests.scenarios.test_policy_travel import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LATER = NOW + timedelta(days=2)
"""The timestamps of this maker are fresh for a day."""
EVIL = b"e" * 32


class Times:
    """The clock of all nodes; `now` is the test's to set."""

    now: datetime = NOW


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    ours = Times()
    monkeypatch.setattr(clock, "now", lambda: ours.now)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    return ours


@pytest.fixture
async def owned(tmp_path: Path, times: Times) -> AsyncIterator[Owned]:
    assert times.now == NOW
    async with owned_cluster(tmp_path) as one:
        yield one


def serials(owned: Owned) -> list[int]:
    return [plane.serial for plane in owned.planes]


async def test_an_image_that_no_release_names_gets_into_no_cluster(
    owned: Owned, tmp_path: Path
) -> None:
    good = await owned.to_next()
    entries = parse_policy(good.signed.policy).releases
    evil = await owned.to_next(releases=(*entries, release_of(EVIL)))
    bare = await owned.to_next(serial=3, releases=(*entries, release_of(EVIL)))
    bare = dataclasses.replace(bare, chain=b"")
    async with machine(tmp_path / "evil", cluster=owned.cluster, given=False, image=EVIL) as node:
        with pytest.raises(Rejected, match="longer or otherwise than release"):
            await owned.hand_over(evil)
        with pytest.raises(Rejected, match="no release came with it"):
            await owned.hand_over(bare)
        assert serials(owned) == [1, 1, 1]
        assert [await p.accepts(node) for p in owned.planes] == [False] * 3
    # the workstation is as it was, but for the serials that it never signs again
    assert owned.state.policy == owned.planes[0].files.kept_policy().signed()
    assert (owned.state.policy_serial, owned.state.signed_serial) == (1, 3)
    await owned.hand_over(await owned.to_next(serial=4))
    assert serials(owned) == [4, 4, 4]


async def test_a_release_of_another_maker_is_untrusted(owned: Owned, tmp_path: Path) -> None:
    maker = Upgrades(cluster=owned.cluster, folder=tmp_path / "attacker")
    maker.publish("0.2.0", EVIL)
    assert owned.state.policy is not None
    with pytest.raises(Untrusted, match="signature"):
        await owned.hand_over(await maker.to("0.2.0", owned.state.policy))
    assert serials(owned) == [1, 1, 1]
    await owned.hand_over(await owned.to_next())
    assert serials(owned) == [2, 2, 2]


async def test_an_expired_chain_is_untrusted_by_the_nodes_own_clocks(
    owned: Owned, times: Times
) -> None:
    offered = await owned.to_next()
    times.now = LATER
    with pytest.raises(Untrusted, match="expired"):
        await owned.hand_over(offered)
    assert serials(owned) == [1, 1, 1]
    times.now = NOW
    await owned.hand_over(offered)
    assert serials(owned) == [2, 2, 2]


async def test_one_that_was_off_for_days_and_two_policies_takes_what_the_others_accepted(
    owned: Owned, times: Times, tmp_path: Path
) -> None:
    away, owned.wait_s = owned.planes[2], 0.0
    await away.stop()
    with pytest.raises(Unavailable):
        await owned.hand_over(await owned.to_next())
    assert owned.state.policy is not None
    with pytest.raises(Unavailable):
        await owned.hand_over(owned.narrower(owned.state.policy, serial=3))
    assert serials(owned) == [3, 3, 1]
    times.now = LATER
    kept = owned.planes[0].files.kept_policy().offered()
    # a control plane's certificate alone, without the join key's word, is not enough
    tls = owned.planes[0].files.service_tls()
    await owned.planes[0].stop()
    await owned.planes[1].stop()
    await away.start()
    with pytest.raises((Untrusted, Rejected)):
        await exchange(tls, away, dataclasses.replace(kept, accepted=None))
    forged = sign_acceptance(
        of_offer(kept, fresh_at=int(NOW.timestamp())),
        owned.cluster.owner,
        cluster_id=owned.cluster.document.cluster_id,
    )
    with pytest.raises(Untrusted):
        await exchange(tls, away, dataclasses.replace(kept, accepted=forged))
    assert away.serial == 1
    assert (await exchange(tls, away, kept)).serial == 3
    assert away.files.kept_policy().offered() == kept
    async with (
        machine(tmp_path / "new", cluster=owned.cluster, given=False, image=NEXT) as new,
        machine(tmp_path / "old", cluster=owned.cluster, given=False, image=IMAGE) as old,
    ):
        assert (await away.accepts(new), await away.accepts(old)) == (True, False)
