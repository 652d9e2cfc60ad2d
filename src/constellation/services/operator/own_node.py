"""What a control plane's operator does for its own node, leader or not: it obeys its order.

The order says what to tell this node's upgrade agent. The agent obeys the signed policy on its own
disk, so an order that somebody else wrote into the object can ask for nothing that the owner of
the cluster did not sign.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from constellation.base.errors import ConstellationError
from constellation.kube.cluster_release import Order, OrderKind, Report

if TYPE_CHECKING:
    from constellation.rpc.upgrade_client import AgentState

__all__ = ["Agent", "Orders", "OwnNode"]

_log = logging.getLogger(__name__)


class Agent(Protocol):
    """This node's upgrade agent (`rpc.upgrade_client.UpgradeClient`)."""

    async def describe(self) -> AgentState:
        """Say what this node runs."""
        ...

    async def upgrade(self, *, serial: int, kubernetes: str) -> None:
        """Bring this node's static pods to the version."""
        ...

    async def retire(self, *, node: str) -> None:
        """End this node's API server for good."""
        ...


class Orders(Protocol):
    """Where orders stand and reports go."""

    async def mine(self) -> tuple[Order | None, Report | None]:
        """Give this node's order, and the report that was written last."""
        ...

    async def report(self, report: Report) -> None:
        """Say what became of an order."""
        ...


class OwnNode:
    """Obeys the orders of one node."""

    def __init__(self, name: str, *, orders: Orders, agent: Agent) -> None:
        self._name, self._orders, self._agent = name, orders, agent

    async def once(self) -> None:
        """Look for an order, and do it unless it is done. Raises Unavailable.

        That it was done once is not enough: a machine that lost its power may have lost what it
        wrote last, and is as it was before.
        """
        order, report = await self._orders.mine()
        if order is None:
            return
        said = report is not None and report.order == order and report.done
        if said and await self._holds(order):
            return
        try:
            await self._do(order)
            outcome = Report(order=order, done=True)
        except ConstellationError as error:
            _log.warning("an order cannot be done yet", extra={"reason": str(error)})
            outcome = Report(order=order, done=False, reason=str(error))
        if outcome != report:
            await self._orders.report(outcome)

    async def _holds(self, order: Order) -> bool:
        try:
            return (await self._agent.describe()).api_server == _api_server_of(order)
        except ConstellationError:  # static pods that cannot be read, for one: done anew
            return False

    async def _do(self, order: Order) -> None:
        _log.info("order", extra={"order": str(order.kind), "serial": order.policySerial})
        match order.kind:
            case OrderKind.UPGRADE:
                await self._agent.upgrade(serial=order.policySerial, kubernetes=order.kubernetes)
            case OrderKind.RETIRE:
                await self._agent.retire(node=self._name)


def _api_server_of(order: Order) -> str:
    """Give the version of this node's API server once the order is done; empty: it has none."""
    return order.kubernetes if order.kind is OrderKind.UPGRADE else ""
