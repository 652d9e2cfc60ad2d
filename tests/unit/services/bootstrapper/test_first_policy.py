"""A new control plane begins with a policy that it has judged, a worker with the shown one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base.errors import Unavailable, Untrusted
from constellation.rpc.stubs import join_pb2
from constellation.services.bootstrapper.first_policy import first_policy
from constellation.services.offered_policy import write_offer
from constellation.trust.policy_acceptance import OfferedPolicy, of_offer, sign_acceptance
from tests.fakes.cluster_machines import OURS
from tests.fakes.tpm import NOW
from tests.fakes.upgrade_world import Upgrades

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.trust.cluster_policy import SignedPolicy


def ticket_of(offered: OfferedPolicy) -> join_pb2.JoinTicket:
    ticket = join_pb2.JoinTicket(node_name="n")
    write_offer(ticket.control_plane, offered)
    return ticket


async def test_a_control_plane_judges_the_release_and_a_worker_keeps_what_it_was_shown(
    tmp_path: Path,
) -> None:
    world = Upgrades(cluster=OURS, folder=tmp_path / "releases")
    world.publish("0.2.0", b"a" * 32)
    offered = await world.to("0.2.0", OURS.policy(serial=1))
    said = of_offer(offered, fresh_at=int(NOW.timestamp()))
    accepted = sign_acceptance(said, OURS.join, cluster_id=OURS.document.cluster_id)
    offered = dataclasses.replace(offered, accepted=accepted)
    shown, root = offered.signed, tmp_path / "root.json"

    def first(ticket: join_pb2.JoinTicket, signed: SignedPolicy) -> OfferedPolicy:
        return first_policy(ticket, signed, document=OURS.document, root=root, now=NOW)

    with pytest.raises(Unavailable, match=r"root\.json"):
        first(ticket_of(offered), shown)
    root.write_bytes(world.maker.pinned_root)
    assert first(ticket_of(offered), shown) == offered
    root.write_bytes(Upgrades(cluster=OURS, folder=tmp_path / "other").maker.pinned_root)
    with pytest.raises(Untrusted, match="signature"):
        first(ticket_of(offered), shown)
    with pytest.raises(Unavailable, match="another cluster policy"):
        first(ticket_of(offered), OURS.policy(serial=1))
    assert first(join_pb2.JoinTicket(node_name="n"), shown) == OfferedPolicy(signed=shown)
