import dataclasses

import pytest

from constellation.kube import membership as members
from constellation.kube.etcd import EtcdMember
from constellation.kube.join_log import Entry, Kind
from constellation.kube.membership import Membership
from constellation.providers.protocols import Role
from constellation.services.joinservice.admit import RESERVATION_S, admit
from constellation.services.joinservice.housekeep import (
    GONE_AFTER_S,
    Observed,
    gone_since,
    next_entry,
    seen_leaving,
    stale_learner,
    standing_since,
    still_due,
)
from tests.fakes.members import DOCUMENT, asks, attested, founded, machine

NOW = 1_800_000_000
NAME = "worker-default-0"
FIRST = "control-plane-default-0"
SECOND = "control-plane-default-1"
QUIET = Observed(
    nodes=frozenset({FIRST, NAME}),
    ready=frozenset({FIRST}),
    instances=frozenset({"cp-0", "w-0"}),
    etcd=(EtcdMember(member_id=1, address="10.42.1.10", learner=False),),
)
GONE = Observed(
    nodes=frozenset({FIRST}), ready=frozenset({FIRST}), instances=frozenset({"cp-0"}), etcd=()
)


def reserved() -> Membership:
    worker = machine(0)
    place = admit(
        founded(),
        asks(worker),
        document=DOCUMENT,
        result=attested(worker),
        instances=(worker,),
        now=NOW,
    )
    return members.reserve(founded(), place.member, expires_at=place.expires_at)


def joining() -> Membership:
    second = machine(1, role=Role.CONTROL_PLANE)
    place = admit(
        founded(),
        asks(second),
        document=DOCUMENT,
        result=attested(second),
        instances=(second,),
        now=NOW,
    )
    return members.reserve(founded(), place.member, expires_at=place.expires_at)


def with_member(*, learner: bool) -> Observed:
    return dataclasses.replace(
        QUIET,
        ready=frozenset({FIRST, SECOND}),
        instances=QUIET.instances | {"cp-1"},
        etcd=(*QUIET.etcd, EtcdMember(member_id=2, address="10.42.1.11", learner=learner)),
    )


def due(
    membership: Membership,
    observed: Observed,
    *,
    now: int = NOW,
    for_s: float = 0.0,
    leaving: frozenset[str] = frozenset(),
) -> tuple[Kind, str] | None:
    """Say what is due after `for_s` in which nothing changed."""
    entry = next_entry(
        membership,
        observed,
        gone=gone_since({}, membership, observed, now_s=0.0),
        standing=standing_since({}, membership, now_s=0.0),
        leaving=leaving,
        now=now,
        now_s=for_s,
    )
    return (entry.kind, entry.name) if entry else None


def test_nothing_is_due_while_nothing_changes() -> None:
    assert due(reserved(), QUIET) is None
    assert due(members.settle(reserved(), NAME), QUIET, for_s=1e6) is None


def test_a_ready_node_is_settled_even_after_its_time() -> None:
    ready = dataclasses.replace(QUIET, ready=frozenset({NAME}))
    assert due(reserved(), ready, for_s=10_000) == (Kind.SETTLED, NAME)


def test_an_unused_reservation_lapses_when_its_time_has_passed_here() -> None:
    assert due(reserved(), QUIET, for_s=RESERVATION_S - 1) is None
    assert due(reserved(), QUIET, for_s=RESERVATION_S) == (Kind.LAPSED, NAME)


@pytest.mark.parametrize("off_s", [400, 3600, -3600])
def test_by_another_machines_clock_no_reservation_lapses_early_or_stays(off_s: int) -> None:
    assert due(reserved(), QUIET, now=NOW + off_s) is None
    assert due(reserved(), QUIET, now=NOW + off_s, for_s=RESERVATION_S) == (Kind.LAPSED, NAME)


def test_who_asks_again_has_its_time_anew_and_what_has_ended_is_forgotten() -> None:
    first = standing_since({}, reserved(), now_s=0.0)
    assert standing_since(first, reserved(), now_s=30.0) == first
    (place,) = reserved().reservations
    again = dataclasses.replace(place.member, joined=place.member.joined + 1)
    anew = members.reserve(reserved(), again, expires_at=place.expires_at)
    assert standing_since(first, anew, now_s=40.0) == {again.joined: 40.0}
    assert standing_since(first, members.settle(reserved(), NAME), now_s=50.0) == {}


def test_a_ready_control_plane_keeps_its_lease_until_its_etcd_member_votes() -> None:
    without = dataclasses.replace(with_member(learner=True), etcd=QUIET.etcd)
    assert due(joining(), without) is None
    assert due(joining(), with_member(learner=True)) is None
    assert due(joining(), with_member(learner=False)) == (Kind.SETTLED, SECOND)


def test_a_reservation_lapses_early_once_its_machine_is_gone() -> None:
    gone = dataclasses.replace(GONE, nodes=frozenset({FIRST}))
    assert due(joining(), gone, for_s=GONE_AFTER_S - 1) is None
    assert due(joining(), gone, for_s=GONE_AFTER_S) == (Kind.LAPSED, SECOND)


def test_a_learner_goes_when_its_control_plane_has_no_lease() -> None:
    seen = with_member(learner=True)
    assert stale_learner(joining(), seen) is None
    late = stale_learner(members.lapse(joining(), SECOND), seen)
    assert late is not None
    assert late.address == "10.42.1.11"
    assert stale_learner(founded(), with_member(learner=False)) is None


@pytest.mark.parametrize("known_to", ["nodes", "instances"])
def test_a_node_that_kubernetes_or_the_provider_knows_is_not_removed(known_to: str) -> None:
    seen = dataclasses.replace(GONE, **{known_to: getattr(QUIET, known_to)})
    assert due(members.settle(reserved(), NAME), seen, for_s=1e6) is None


def test_a_node_that_nobody_knows_is_removed_then_forgotten_after_a_while() -> None:
    live = members.settle(reserved(), NAME)
    assert due(live, GONE, for_s=GONE_AFTER_S - 1) is None
    assert due(live, GONE, for_s=GONE_AFTER_S) == (Kind.REMOVED, NAME)
    retired = members.remove(live, NAME)
    assert due(retired, GONE, for_s=GONE_AFTER_S) == (Kind.FORGOTTEN, NAME)


def test_a_node_that_comes_back_starts_anew() -> None:
    live = members.settle(reserved(), NAME)
    gone = gone_since({}, live, GONE, now_s=0.0)
    gone = gone_since(gone, live, QUIET, now_s=30.0)
    assert gone_since(gone, live, GONE, now_s=40.0) == {NAME: 40.0}


def test_what_another_join_service_recorded_is_not_recorded_again() -> None:
    live = members.settle(reserved(), NAME)
    retired = members.remove(live, NAME)
    forgotten = members.forget(retired, NAME)
    table = {
        Kind.SETTLED: (reserved(), live),
        Kind.LAPSED: (reserved(), live),
        Kind.REMOVED: (live, retired),
        Kind.FORGOTTEN: (retired, forgotten),
    }
    for kind, (before, after) in table.items():
        entry = Entry(kind=kind, time=NOW, name=NAME)
        standing = standing_since({}, before, now_s=0.0)
        assert still_due(before, entry, standing=standing) is entry
        assert still_due(after, entry, standing=standing) is None


def test_a_node_that_asked_again_meanwhile_keeps_its_place() -> None:
    decided_by = standing_since({}, reserved(), now_s=0.0)
    (place,) = reserved().reservations
    again = dataclasses.replace(place.member, joined=place.member.joined + 1)
    newer = members.reserve(reserved(), again, expires_at=place.expires_at)
    lapsed = Entry(kind=Kind.LAPSED, time=NOW, name=NAME)
    assert still_due(reserved(), lapsed, standing=decided_by) is lapsed
    assert still_due(newer, lapsed, standing=decided_by) is None


def test_a_node_that_was_leaving_is_removed_as_soon_as_nobody_knows_it() -> None:
    live = members.settle(reserved(), NAME)
    leaving = seen_leaving(frozenset(), dataclasses.replace(QUIET, leaving=frozenset({NAME})))
    assert due(live, QUIET, leaving=leaving) is None  # it is still there
    still_listed = dataclasses.replace(GONE, instances=QUIET.instances)
    assert due(live, still_listed, leaving=leaving) is None
    assert due(live, GONE, leaving=seen_leaving(leaving, GONE)) == (Kind.REMOVED, NAME)
    assert due(live, GONE) is None  # without the mark only after a while
    retired = members.remove(live, NAME)
    assert due(retired, GONE, leaving=leaving) is None  # its name rests as ever


def test_a_node_that_stays_after_all_is_no_more_leaving() -> None:
    leaving = seen_leaving(frozenset({NAME}), QUIET)
    assert leaving == frozenset()
    assert seen_leaving(frozenset({NAME}), GONE) == {NAME}
