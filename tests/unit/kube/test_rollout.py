"""The roll-out's planner: its order, its windows, and the version invariant under any failure."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation.kube.membership import NodeRole
from constellation.kube.rollout import (
    ApplyCloudObjects,
    ApplyCoreDns,
    ApplyRbac,
    CreateNode,
    Desired,
    Health,
    NodeGroup,
    NodeView,
    Observed,
    RemoveNode,
    SetConfigMaps,
    Snapshot,
    Stop,
    UpgradeControlPlane,
    Wait,
    control_plane_may_join,
    next_actions,
    quorum,
    ticket_kubernetes,
    violations,
)
from constellation.kube.rollout_model import after, describe, joined, steps_to_the_end

PLANES, WORKERS = "planes", "workers"
OLD, NEW = "v1.35.3", "v1.36.1"


def node(group: str, index: int, **changes: object) -> NodeView:
    plane = group == PLANES
    made = NodeView(
        name=f"{group}-{index}",
        role=NodeRole.CONTROL_PLANE if plane else NodeRole.WORKER,
        group=group,
        image="old",
        kubelet=OLD,
        api_server=OLD if plane else "",
        health=Health.READY,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type] # fields by name


def cluster(planes: int = 3, workers: int = 2, **changes: object) -> Observed:
    nodes = [node(PLANES, i) for i in range(planes)] + [node(WORKERS, i) for i in range(workers)]
    made = Observed(nodes=tuple(nodes), snapshot=False, config_maps=OLD, core_dns=OLD, rbac=OLD)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type] # fields by name


def desired(
    planes: int = 3,
    workers: int = 2,
    *,
    kubernetes: str = NEW,
    surge: int = 1,
    unavailable: int = 0,
) -> Desired:
    return Desired(
        image="new",
        kubernetes=kubernetes,
        groups=(
            NodeGroup(name=PLANES, role=NodeRole.CONTROL_PLANE, size=planes),
            NodeGroup(
                name=WORKERS,
                role=NodeRole.WORKER,
                size=workers,
                surge=surge,
                unavailable=unavailable,
            ),
        ),
    )


def with_node(observed: Observed, name: str, **changes: object) -> Observed:
    nodes = tuple(
        dataclasses.replace(n, **changes) if n.name == name else n  # type: ignore[arg-type] # by name
        for n in observed.nodes
    )
    return dataclasses.replace(observed, nodes=nodes)


def test_a_new_kubernetes_comes_in_the_order_of_the_design() -> None:
    steps = steps_to_the_end(cluster(), desired())
    assert steps == (
        Snapshot(),
        SetConfigMaps(kubernetes=NEW),
        *(UpgradeControlPlane(node=f"planes-{i}", kubernetes=NEW) for i in range(3)),
        ApplyCoreDns(kubernetes=NEW),
        ApplyRbac(kubernetes=NEW),
        *(x for i in range(3) for x in (CreateNode(group=PLANES), RemoveNode(node=f"planes-{i}"))),
        *(
            x
            for i in range(2)
            for x in (CreateNode(group=WORKERS), RemoveNode(node=f"workers-{i}"))
        ),
    )
    assert describe(steps[2]) == ("control plane", "static pods of planes-0 to v1.36.1")


@pytest.mark.parametrize("planes", [1, 3, 5])
def test_an_image_alone_touches_no_static_pod(planes: int) -> None:
    steps = steps_to_the_end(cluster(planes, 1), desired(planes, 1, kubernetes=OLD))
    assert {type(s) for s in steps} == {CreateNode, RemoveNode}
    assert len(steps) == 2 * (planes + 1)


def test_the_clouds_components_are_renewed_after_the_control_planes_and_before_workers() -> None:
    wanted = dataclasses.replace(desired(), cloud_objects="ab" * 32)
    steps = steps_to_the_end(cluster(cloud_objects="cd" * 32), wanted)
    (place,) = (i for i, step in enumerate(steps) if isinstance(step, ApplyCloudObjects))
    assert {s.node for s in steps[:place] if isinstance(s, RemoveNode)} == {
        f"{PLANES}-{i}" for i in range(3)
    }
    assert {s.node for s in steps[place:] if isinstance(s, RemoveNode)} == {
        f"{WORKERS}-{i}" for i in range(2)
    }


@pytest.mark.parametrize(("there", "wanted"), [("", "ab" * 32), ("ab" * 32, "")])
def test_components_alone_replace_no_node(there: str, wanted: str) -> None:
    aim = dataclasses.replace(desired(kubernetes=OLD), image="old", cloud_objects=wanted)
    assert steps_to_the_end(cluster(cloud_objects=there), aim) == (
        ApplyCloudObjects(digest=wanted),
    )


def test_a_cluster_as_desired_needs_nothing() -> None:
    same = dataclasses.replace(desired(kubernetes=OLD), image="old")
    assert next_actions(cluster(), same) == ()


def test_the_next_node_boots_while_the_last_drains() -> None:
    observed = with_node(cluster(1, 2), "workers-0", health=Health.DRAINING)
    observed = with_node(observed, "planes-0", image="new")
    fresh = node(WORKERS, 2, image="new")
    observed = dataclasses.replace(observed, nodes=(*observed.nodes, fresh))
    assert next_actions(observed, desired(1, 2, kubernetes=OLD)) == (CreateNode(group=WORKERS),)


def test_control_planes_never_go_two_at_once() -> None:
    observed = with_node(cluster(), "planes-1", health=Health.DRAINING)
    assert next_actions(observed, desired(kubernetes=OLD)) == (
        Wait(why="control plane planes-1 is draining"),
    )


def test_surge_and_unavailable_bound_how_many_workers_go_at_once() -> None:
    observed = with_node(cluster(1, 4), "planes-0", image="new")
    wide = desired(1, 4, kubernetes=OLD, surge=2, unavailable=1)
    assert next_actions(observed, wide) == (
        CreateNode(group=WORKERS),
        CreateNode(group=WORKERS),
        RemoveNode(node="workers-0"),
    )
    assert next_actions(observed, desired(1, 4, kubernetes=OLD)) == (CreateNode(group=WORKERS),)


def test_a_new_node_that_is_not_healthy_stops_everything_and_the_old_stays() -> None:
    failed = node(WORKERS, 9, image="new", health=Health.FAILED, reason="no network")
    observed = dataclasses.replace(cluster(), nodes=(*cluster().nodes, failed))
    assert next_actions(observed, desired(kubernetes=OLD)) == (
        Stop(why="new node workers-9 is not healthy: no network"),
    )


@pytest.mark.parametrize("health", [Health.NOT_READY, Health.STARTING])
def test_a_control_plane_that_is_not_ready_is_waited_for(health: Health) -> None:
    observed = with_node(cluster(), "planes-2", health=health)
    assert next_actions(observed, desired()) == (Wait(why=f"control plane planes-2 is {health}"),)


def test_a_dead_control_plane_is_removed_only_if_the_others_are_a_quorum() -> None:
    one = with_node(cluster(), "planes-0", health=Health.DEAD)
    assert next_actions(one, desired()) == (RemoveNode(node="planes-0"),)
    two = with_node(one, "planes-1", health=Health.DEAD)
    (stop,) = next_actions(two, desired())
    assert stop == Stop(why="1 of 3 control planes live: no quorum; recover first")


def test_kubernetes_goes_back_only_while_no_api_server_is_newer() -> None:
    begun = dataclasses.replace(cluster(), snapshot=True, config_maps=NEW)
    back = dataclasses.replace(desired(kubernetes=OLD), image="old")
    assert next_actions(begun, back) == (SetConfigMaps(kubernetes=OLD),)
    (stop,) = next_actions(with_node(begun, "planes-0", api_server=NEW), back)
    assert stop == Stop(
        why="API server of planes-0 has v1.36.1: Kubernetes does not go back to v1.35.3"
    )


def test_a_skipped_minor_version_stops_before_any_static_pod() -> None:
    ready = dataclasses.replace(cluster(), snapshot=True, config_maps="v1.37.0")
    (stop,) = next_actions(ready, desired(kubernetes="v1.37.0"))
    assert stop == Stop(why="v1.35.3 to v1.37.0 skips a minor version")


def test_until_all_api_servers_are_new_workers_get_the_oldest_and_no_control_plane_joins() -> None:
    half = with_node(cluster(), "planes-0", api_server=NEW)
    assert ticket_kubernetes(half) == OLD
    assert not control_plane_may_join(half, desired())
    off = with_node(half, "planes-1", api_server=NEW)
    off = with_node(off, "planes-2", health=Health.NOT_READY)
    assert (ticket_kubernetes(off), control_plane_may_join(off, desired())) == (OLD, False)
    whole = with_node(off, "planes-2", api_server=NEW)
    assert (ticket_kubernetes(whole), control_plane_may_join(whole, desired())) == (NEW, True)


def test_the_invariant_names_what_breaks_it() -> None:
    assert violations(cluster()) == ()
    newer = with_node(cluster(), "workers-0", kubelet=NEW)
    assert violations(newer) == (
        "kubelet of workers-0 is v1.36.1, newer than an API server of v1.35.3",
    )
    apart = with_node(cluster(), "planes-0", api_server="v1.37.0")
    assert violations(apart) == (
        "API servers of v1.35.3 and v1.37.0: more than one minor version apart",
    )


@pytest.mark.parametrize("size", [0, 2, 4, 7])
def test_a_group_of_control_planes_is_1_3_or_5(size: int) -> None:
    with pytest.raises(ValueError, match="1, 3 or 5"):
        desired(size)


def _quorum_holds(observed: Observed) -> bool:
    planes = [n for n in observed.nodes if n.role is NodeRole.CONTROL_PLANE]
    return sum(n.health is Health.READY for n in planes) >= quorum(len(planes))


def _disturbed(data: st.DataObject, observed: Observed, goal: Desired) -> Observed:
    """Let something happen that no action of ours caused, never beyond a lost quorum."""
    kind = data.draw(st.sampled_from(["nothing", "dies", "sick", "back", "joins", "nothing"]))
    name = data.draw(st.sampled_from([n.name for n in observed.nodes]))
    if kind == "joins":
        fresh = joined(observed, goal, WORKERS)
        # autoscaling: an old node leaves for it, so that sizes hold
        gone = next((n.name for n in observed.nodes if n.group == WORKERS), None)
        nodes = tuple(n for n in observed.nodes if n.name != gone)
        return dataclasses.replace(observed, nodes=(*nodes, fresh))
    health = {"dies": Health.DEAD, "sick": Health.NOT_READY, "back": Health.READY}.get(kind)
    if health is None:
        return observed
    (before,) = (n.health for n in observed.nodes if n.name == name)
    if health is Health.READY and before is not Health.NOT_READY:
        return observed
    found = with_node(observed, name, health=health)
    return found if _quorum_holds(found) else observed


def _done(data: st.DataObject, observed: Observed, goal: Desired) -> Observed:
    """Do one of what may be done: in one go, or so that it is seen half-way first."""
    actions = next_actions(observed, goal)
    if not actions:
        return observed
    action = data.draw(st.sampled_from(actions))
    if isinstance(action, Wait | Stop):
        return _healed(observed)
    half_way = data.draw(st.booleans())
    if isinstance(action, RemoveNode) and half_way:
        (health,) = (n.health for n in observed.nodes if n.name == action.node)
        if health is not Health.DEAD:
            return with_node(observed, action.node, health=Health.DRAINING)
    if isinstance(action, CreateNode):
        role = next(g.role for g in goal.groups if g.name == action.group)
        if role is NodeRole.CONTROL_PLANE:
            assert control_plane_may_join(observed, goal)
        if half_way:
            fresh = joined(observed, goal, action.group, health=Health.STARTING)
            return dataclasses.replace(observed, nodes=(*observed.nodes, fresh))
    return after(observed, action, goal)


def _healed(observed: Observed) -> Observed:
    """Let what goes on come to its end: what starts or was sick is Ready, what drains is gone."""
    nodes = tuple(
        dataclasses.replace(n, health=Health.READY)
        if n.health in (Health.STARTING, Health.NOT_READY)
        else n
        for n in observed.nodes
        if n.health is not Health.DRAINING
    )
    return dataclasses.replace(observed, nodes=nodes)


@given(
    data=st.data(),
    planes=st.sampled_from([1, 3, 5]),
    workers=st.integers(1, 4),
    surge=st.integers(0, 2),
    unavailable=st.integers(0, 2),
    kubernetes=st.sampled_from([OLD, "v1.35.4", NEW]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_fails_in_whatever_order_the_invariant_and_the_quorum_hold(
    *, data: st.DataObject, planes: int, workers: int, surge: int, unavailable: int, kubernetes: str
) -> None:
    if surge + unavailable == 0:
        surge = 1
    goal = desired(
        planes, workers, kubernetes=kubernetes, surge=surge, unavailable=min(unavailable, workers)
    )
    observed = cluster(planes, workers)
    for _ in range(data.draw(st.integers(0, 25))):
        observed = _disturbed(data, observed, goal)
        assert violations(observed) == ()
        before = observed
        observed = _done(data, observed, goal)
        assert violations(observed) == ()
        assert _quorum_holds(observed) or before.nodes == observed.nodes or _busy(observed)
        for group in goal.groups:
            there = [n for n in observed.nodes if n.group == group.name]
            staying = [n for n in there if n.health is not Health.DRAINING]
            assert len(staying) <= group.size + group.surge
    # left alone it comes to its end
    for _ in range(200):
        actions = next_actions(observed, goal)
        if not actions:
            break
        for action in actions:
            observed = after(observed, action, goal)
            assert violations(observed) == ()
        observed = _healed(observed)
    assert next_actions(observed, goal) == ()
    assert {(n.image, n.kubelet) for n in observed.nodes} == {("new", kubernetes)}
    assert {n.api_server for n in observed.nodes} == {kubernetes, ""}
    for group in goal.groups:
        assert sum(n.group == group.name for n in observed.nodes) == group.size


def _busy(observed: Observed) -> bool:
    """Say whether a control plane is on its way in or out: its own step took the margin."""
    return any(
        n.role is NodeRole.CONTROL_PLANE and n.health in (Health.STARTING, Health.DRAINING)
        for n in observed.nodes
    )


@given(
    unavailable=st.integers(0, 3),
    surge=st.integers(0, 3),
    workers=st.integers(1, 6),
    data=st.data(),
)
def test_removals_never_leave_fewer_ready_workers_than_allowed(
    unavailable: int, surge: int, workers: int, data: st.DataObject
) -> None:
    if surge + unavailable == 0:
        surge = 1
    goal = desired(1, workers, kubernetes=OLD, surge=surge, unavailable=unavailable)
    observed = with_node(cluster(1, workers), "planes-0", image="new")
    while actions := next_actions(observed, goal):
        action = data.draw(st.sampled_from(actions))
        assert not isinstance(action, Stop)
        observed = after(observed, action, goal)
        ready = sum(n.group == WORKERS for n in observed.nodes)
        assert ready >= workers - unavailable
        assert ready <= workers + surge
