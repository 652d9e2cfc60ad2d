import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.kube.etcd import EtcdMember, parse_members
from constellation.services.operator.leader import DURATION_S, Move, move, see
from constellation.services.operator.plan import (
    GONE_AFTER,
    GONE_AFTER_S,
    Absence,
    DeleteNode,
    KubernetesNode,
    Observed,
    RemoveMember,
    plan,
    watch_absence,
)

CPS = ("10.42.1.10", "10.42.1.11", "10.42.1.12")
WORKER = "10.42.2.10"
ALL = Observed(
    own_address=CPS[0],
    addresses=frozenset({*CPS, WORKER}),
    nodes=tuple(KubernetesNode(name=f"n-{a}", address=a) for a in (*CPS, WORKER)),
    members=tuple(EtcdMember(member_id=i, address=a, learner=False) for i, a in enumerate(CPS)),
)


def without(*addresses: str) -> Observed:
    return dataclasses.replace(ALL, addresses=ALL.addresses - set(addresses))


def removed(observed: Observed) -> list[str]:
    """What is removed after the same look came often enough."""
    absent: dict[str, Absence] = {}
    for look in range(GONE_AFTER):
        now_s = look * GONE_AFTER_S
        absent = watch_absence(absent, observed, now_s=now_s)
    actions = plan(observed, absent, now_s=now_s)
    return [
        f"etcd {a.member.address}" if isinstance(a, RemoveMember) else f"node {a.node.address}"
        for a in actions
    ]


def test_nothing_is_removed_while_all_machines_are_listed() -> None:
    assert removed(ALL) == []


def test_a_worker_that_is_gone_loses_its_node() -> None:
    assert removed(without(WORKER)) == [f"node {WORKER}"]


def test_a_control_plane_leaves_etcd_before_kubernetes() -> None:
    assert removed(without(CPS[2])) == [f"etcd {CPS[2]}", f"node {CPS[2]}"]


def test_no_member_is_removed_without_a_quorum_of_live_ones() -> None:
    assert removed(without(CPS[1], CPS[2])) == []


def test_a_dead_learner_goes_first() -> None:
    learner = EtcdMember(member_id=9, address="10.42.1.19", learner=True)
    observed = without(CPS[1], CPS[2])
    observed = dataclasses.replace(observed, members=(*observed.members, learner))
    assert removed(observed) == ["etcd 10.42.1.19"]


def test_a_list_without_our_own_machine_is_not_believed() -> None:
    assert removed(without(*CPS, WORKER)) == []
    assert removed(without(CPS[0], WORKER)) == []


@pytest.mark.parametrize(
    ("looks", "seconds"), [(GONE_AFTER - 1, 1e6), (GONE_AFTER, GONE_AFTER_S - 1)]
)
def test_both_looks_and_seconds_are_needed(looks: int, seconds: float) -> None:
    absent = {WORKER: Absence(since_s=0.0, looks=looks)}
    assert plan(without(WORKER), absent, now_s=seconds) == ()


def test_a_machine_that_is_listed_again_starts_anew() -> None:
    absent = watch_absence({}, without(WORKER), now_s=0.0)
    absent = watch_absence(absent, ALL, now_s=10.0)
    absent = watch_absence(absent, without(WORKER), now_s=20.0)
    assert absent == {WORKER: Absence(since_s=20.0, looks=1)}


@given(st.sets(st.sampled_from([*CPS[1:], WORKER])), st.integers(0, 9))
def test_what_is_listed_is_never_removed_and_quorum_stays(gone: set[str], looks: int) -> None:
    observed = without(*gone)
    absent = {a: Absence(since_s=0.0, looks=looks) for a in gone}
    actions = plan(observed, absent, now_s=1e6)
    for action in actions:
        target = action.member if isinstance(action, RemoveMember) else action.node
        assert target.address in gone
    assert sum(isinstance(a, RemoveMember) for a in actions) <= 1
    assert not [a for a in actions if isinstance(a, DeleteNode) and looks < GONE_AFTER]


def test_a_lease_is_taken_when_it_stands_still_and_not_before() -> None:
    assert move(None, me="a", now_s=0.0) is Move.CREATE
    seen = see(None, holder="b", version="1", now_s=0.0)
    assert move(seen, me="b", now_s=1.0) is Move.HOLD
    assert move(seen, me="a", now_s=DURATION_S - 1) is Move.WAIT
    same = see(seen, holder="b", version="1", now_s=DURATION_S)
    assert move(same, me="a", now_s=DURATION_S) is Move.HOLD
    renewed = see(seen, holder="b", version="2", now_s=DURATION_S)
    assert move(renewed, me="a", now_s=DURATION_S) is Move.WAIT


def test_etcd_answers_are_read_strictly() -> None:
    reply = {
        "members": [
            {"ID": "18446744073709551615", "peerURLs": ["https://10.42.1.10:2380"]},
            {"ID": "2", "peerURLs": ["https://10.42.1.11:2380"], "isLearner": True},
        ]
    }
    assert parse_members(reply) == (
        EtcdMember(member_id=2**64 - 1, address="10.42.1.10", learner=False),
        EtcdMember(member_id=2, address="10.42.1.11", learner=True),
    )
    for junk in ({}, [], {"members": [{"ID": "x", "peerURLs": ["y"]}]}, {"members": [{}]}):
        with pytest.raises(FormatError):
            parse_members(junk)
