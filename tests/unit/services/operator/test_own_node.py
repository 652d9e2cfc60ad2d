"""A control plane obeys its order once, says why it cannot, and never another node's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from constellation.base.errors import Conflict, FormatError
from constellation.kube.cluster_release import Order, OrderKind, Report
from constellation.rpc.upgrade_client import AgentState
from constellation.services.operator.own_node import OwnNode

UPGRADE = Order(kind=OrderKind.UPGRADE, policySerial=2, kubernetes="v1.36.2")
RETIRE = dataclasses.replace(UPGRADE, kind=OrderKind.RETIRE)


@dataclass
class _Side:
    """Orders, and an agent that obeys policy 2 only."""

    order: Order | None = None
    written: Report | None = None
    writes: int = 0
    did: list[str] = field(default_factory=list)
    api_server: str = "v1.35.3"
    unreadable: bool = False

    async def mine(self) -> tuple[Order | None, Report | None]:
        return self.order, self.written

    async def report(self, report: Report) -> None:
        self.written, self.writes = report, self.writes + 1

    async def describe(self) -> AgentState:
        if self.unreadable:
            raise FormatError("static pod: 0 image tags, want one")
        return AgentState(
            policy_serial=2,
            kubernetes="v1.36.2",
            api_server=self.api_server,
            snapshot=False,
            cloud_objects=None,
        )

    async def upgrade(self, *, serial: int, kubernetes: str) -> None:
        if serial != 2:
            raise Conflict(f"the order is of policy {serial}, this node obeys 2")
        self.did.append(f"upgrade {kubernetes}")
        self.api_server, self.unreadable = kubernetes, False

    async def retire(self, *, node: str) -> None:
        self.did.append(f"retire {node}")
        self.api_server = ""


async def looks(side: _Side, *, count: int) -> None:
    node = OwnNode("cp-1", orders=side, agent=side)
    for _ in range(count):
        await node.once()


async def test_without_an_order_nothing_is_done() -> None:
    side = _Side()
    await looks(side, count=3)
    assert (side.did, side.writes) == ([], 0)


async def test_an_order_is_done_once_and_reported() -> None:
    side = _Side(order=UPGRADE)
    await looks(side, count=3)
    assert side.did == ["upgrade v1.36.2"]
    assert (side.written, side.writes) == (Report(order=UPGRADE, done=True), 1)
    side.order = RETIRE
    await looks(side, count=2)
    assert side.did[1:] == ["retire cp-1"]


async def test_what_the_agent_refuses_is_reported_and_tried_again() -> None:
    early = dataclasses.replace(UPGRADE, policySerial=3)
    side = _Side(order=early)
    await looks(side, count=3)
    assert side.did == []
    assert side.written == Report(
        order=early, done=False, reason="the order is of policy 3, this node obeys 2"
    )
    assert side.writes == 1, "the same reason is written once"
    side.order = UPGRADE
    await looks(side, count=1)
    assert side.written == Report(order=UPGRADE, done=True)


@pytest.mark.parametrize("order", [UPGRADE, RETIRE])
async def test_what_a_power_cut_took_back_is_done_again_though_it_was_reported(
    order: Order,
) -> None:
    side = _Side(order=order, written=Report(order=order, done=True))
    await looks(side, count=3)
    assert len(side.did) == 1
    side.api_server, side.unreadable = "v1.35.3", order is UPGRADE
    await looks(side, count=3)
    assert len(side.did) == 2
    assert side.written == Report(order=order, done=True)
