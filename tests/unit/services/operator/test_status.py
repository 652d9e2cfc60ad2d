"""People see what goes on: phase, message, and for each node its step, since when, and why."""

from __future__ import annotations

import asyncio
import dataclasses

from constellation.kube.cluster_release import Order, OrderKind, Phase, Report
from constellation.kube.rollout import CreateNode, Stop, Wait
from constellation.services.operator.health import remember, views
from constellation.services.operator.status import Doing, release_status
from tests.fakes.rollout_world import RolloutWorld

FACTS = asyncio.run(RolloutWorld.running(control_planes=1, workers=1).look())
NODES = views(FACTS, remember(None, FACTS, now_s=0.0))
NOTHING = Doing(steps={}, failures={})
WORKER, PLANE = "worker-default-0", "control-plane-default-0"


def test_an_idle_cluster_says_so() -> None:
    status = release_status(FACTS, NODES, (), NOTHING, before=None, now="t0")
    assert status.phase is Phase.IDLE
    assert status.message == "all nodes are as the cluster policy says"
    assert {(n.health, n.step, n.since) for n in status.nodes} == {("ready", "", "t0")}


def test_a_stop_is_the_message_whatever_else_goes_on() -> None:
    actions = (CreateNode(group="w"), Stop(why="because"))
    status = release_status(FACTS, NODES, actions, NOTHING, before=None, now="t0")
    assert (status.phase, status.message) == (Phase.STOPPED, "because")


def test_failures_and_waits_are_said() -> None:
    doing = Doing(steps={WORKER: "drain"}, failures={"create w 0": "no room"})
    status = release_status(FACTS, NODES, (Wait(why="later"),), doing, before=None, now="t0")
    assert status.phase is Phase.ROLLING
    assert status.message == "create w 0: no room; later"
    assert next(n.step for n in status.nodes if n.name == WORKER) == "drain"


def test_since_changes_with_step_or_health_only() -> None:
    first = release_status(FACTS, NODES, (), NOTHING, before=None, now="t0")
    doing = Doing(steps={WORKER: "drain"}, failures={})
    second = release_status(FACTS, NODES, (), doing, before=first, now="t1")
    assert {n.name: n.since for n in second.nodes} == {WORKER: "t1", PLANE: "t0"}
    third = release_status(FACTS, NODES, (), doing, before=second, now="t2")
    assert third == second


def test_an_order_and_what_speaks_against_it_are_shown() -> None:
    order = Order(kind=OrderKind.UPGRADE, policySerial=1, kubernetes="v1.36.2")
    report = Report(order=order, done=False, reason="no kubeadm")
    facts = dataclasses.replace(FACTS, orders={PLANE: order}, reports={PLANE: report})
    shown = release_status(facts, NODES, (), NOTHING, before=None, now="t0").nodes
    plane = next(n for n in shown if n.name == PLANE)
    assert (plane.step, plane.reason) == ("upgrade", "no kubeadm")
    old = dataclasses.replace(report, order=dataclasses.replace(order, policySerial=0))
    facts = dataclasses.replace(facts, reports={PLANE: old})
    shown = release_status(facts, NODES, (), NOTHING, before=None, now="t0").nodes
    assert next(n.reason for n in shown if n.name == PLANE) == ""
