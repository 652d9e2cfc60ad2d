"""A rejoined node refuses a policy older than the one on its disk, and keeps what is newer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, Rejected, Unavailable, Untrusted
from constellation.kube.peers import SignedPeers, load_peers, sign_peers
from constellation.services.diskmapper.compare import compare_and_keep
from constellation.services.diskmapper.open_disk import Shown
from constellation.services.kept_policy import KeptPolicy
from tests.fakes.cluster_machines import IMAGE, OURS, Cluster
from tests.fakes.members import founded

if TYPE_CHECKING:
    from pathlib import Path


def peers(serial: int) -> SignedPeers:
    return sign_peers(
        dataclasses.replace(founded(), peers_serial=serial), join_private_key=OURS.join
    )


def shown(*, serial: int = 3, peers_serial: int = 7) -> Shown:
    return Shown(policy=OURS.policy(serial=serial), peers=peers(peers_serial))


@pytest.fixture
def kept(tmp_path: Path) -> KeptPolicy:
    one = KeptPolicy(state=tmp_path, document=OURS.document)
    one.keep_first(OURS.policy(serial=3))
    return one


def kept_peers(kept: KeptPolicy) -> int:
    return load_peers((kept.state / "peers.json").read_bytes(), what="peers").serial


def test_a_lower_serial_is_refused_and_nothing_of_it_kept(kept: KeptPolicy) -> None:
    with pytest.raises(Untrusted, match="found serial 2, expected at least 3"):
        compare_and_keep(shown(serial=2), kept=kept)
    assert kept.verified().serial == 3
    assert not (kept.state / "peers.json").exists()
    compare_and_keep(shown(), kept=kept)
    assert kept_peers(kept) == 7


def test_another_policy_of_the_same_serial_and_another_join_key_are_refused(
    kept: KeptPolicy,
) -> None:
    same = OURS.policy(serial=3, images=(IMAGE, bytes(32)))
    with pytest.raises(Conflict, match="another one with serial 3"):
        compare_and_keep(dataclasses.replace(shown(), policy=same), kept=kept)
    other = Cluster(name=OURS.name, owner=OURS.owner).policy(serial=4)
    with pytest.raises(Rejected, match="another join key"):
        compare_and_keep(dataclasses.replace(shown(), policy=other), kept=kept)
    compare_and_keep(shown(serial=4), kept=kept)
    assert kept.verified().serial == 4


def test_a_control_plane_leaves_a_newer_policy_to_its_join_service(kept: KeptPolicy) -> None:
    join_key = kept.state / "keys" / "join.pem"
    join_key.parent.mkdir()
    join_key.touch()
    compare_and_keep(shown(serial=4), kept=kept)
    assert kept.verified().serial == 3
    with pytest.raises(Untrusted, match="found serial 2, expected at least 3"):
        compare_and_keep(shown(serial=2), kept=kept)
    join_key.unlink()
    compare_and_keep(shown(serial=4), kept=kept)
    assert kept.verified().serial == 4


def test_a_disk_without_a_policy_is_not_as_the_node_left_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"policy\.json"):
        compare_and_keep(shown(), kept=KeptPolicy(state=tmp_path, document=OURS.document))


def test_the_newer_peer_list_stays(kept: KeptPolicy) -> None:
    for given, left in ((7, 7), (6, 7), (9, 9)):
        compare_and_keep(shown(peers_serial=given), kept=kept)
        assert kept_peers(kept) == left
