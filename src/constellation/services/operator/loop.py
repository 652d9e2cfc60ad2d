"""The operator's loops: hold the Lease; when leading look, plan and act; always obey own orders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable  # noqa: TC003 - a field's type
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Protocol

from constellation.base import clock
from constellation.base.errors import ConstellationError
from constellation.kube.cluster_release import dump_status
from constellation.services.operator.executor import Executor
from constellation.services.operator.fleet import nameless, settled_groups
from constellation.services.operator.leader import DURATION_S
from constellation.services.operator.rollout import judge, missing_groups
from constellation.services.operator.status import Doing, release_status

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from constellation.kube.cluster_release import ReleaseStatus
    from constellation.services.operator.autoscaler_door import Door
    from constellation.services.operator.facts import Facts
    from constellation.services.operator.health import Memory
    from constellation.services.operator.own_node import OwnNode
    from constellation.services.operator.ports import World
    from constellation.services.operator.removal import Pace

__all__ = ["Leadership", "Operator"]

_LEASE_EVERY_S = 3.0
_LOOK_EVERY_S = 2.0
_OWN_EVERY_S = 2.0
_DOOR_EVERY_S = 5.0
_STAND_DOWN_EVERY_S = 1.0
_ACTS_FOR_S = DURATION_S * 2 / 3
"""Seconds after a renewal for which the leader acts: shorter than others wait for it."""
_log = logging.getLogger(__name__)


class Leadership(Protocol):
    """The Lease."""

    async def leads(self) -> bool:
        """Take or renew the Lease, unless this node is leaving; say whether this one leads."""
        ...


@dataclass(kw_only=True)
class Operator:
    """One control plane's operator."""

    world: World
    leadership: Leadership
    own: OwnNode
    door: Door
    pace: Pace
    now_s: Callable[[], float] = clock.monotonic_s

    def __post_init__(self) -> None:
        self._leads_until_s = float("-inf")
        self._memory: Memory | None = None
        self._status: ReleaseStatus | None = None
        self._executor = Executor(self.world, pace=self.pace, now_s=self.now_s)

    async def run(self) -> None:
        """Repeat for ever; what fails is tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_every(_LEASE_EVERY_S, self.renew))
            tasks.create_task(_every(_STAND_DOWN_EVERY_S, self.stand_down))
            tasks.create_task(_every(_LOOK_EVERY_S, self.once))
            tasks.create_task(_every(_OWN_EVERY_S, self.own.once))
            tasks.create_task(_every(_DOOR_EVERY_S, self.door.once))

    async def close(self) -> None:
        """End what is being done; the next leader finds it half done, and goes on."""
        await self._executor.close()
        await self.door.close()

    async def renew(self) -> None:
        """Take or renew the Lease. Raises Unavailable."""
        now_s = self.now_s()
        if await self.leadership.leads():
            self._leads_until_s = now_s + _ACTS_FOR_S
        else:
            self._leads_until_s = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return self._executor.busy

    async def stand_down(self) -> None:
        """End what is being done once another may lead, also while a look hangs."""
        if self.busy and self.now_s() >= self._leads_until_s:
            _log.warning("the lease was not renewed in time, work is left to who leads now")
            await self._executor.close()

    async def once(self) -> None:
        """Look, plan and start what may be done, if this operator leads. Raises Unavailable."""
        if self.now_s() >= self._leads_until_s:
            await self._executor.close()
            self._memory = self._status = None
            return
        self._executor.begin_look()
        facts = await self.world.look()
        await self._tidy(facts)
        judged = judge(facts, self._memory, now_s=self.now_s())
        self._memory = judged.memory
        if self.now_s() >= self._leads_until_s:
            return  # the look took long: another may lead by now
        self._executor.start(judged.actions, facts, judged.nodes)
        status = release_status(
            facts,
            judged.nodes,
            judged.actions,
            Doing(steps=self._executor.steps(), failures=self._executor.failures()),
            before=self._status,
            now=clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        if status != self._status:
            await self.world.write_status(dump_status(status))
            self._status = status

    async def _tidy(self, facts: Facts) -> None:
        """Write what objects of groups and nodes lack, and take away what is over."""
        for group in missing_groups(facts):
            await self.world.create_group(group)
        for group in settled_groups(facts):
            await self.world.change_group(group)
        for node, provider_id in nameless(facts):
            await self.world.set_provider_id(node, provider_id)


async def _every(seconds: float, once: Callable[[], Awaitable[None]]) -> None:
    said = ""
    while True:
        try:
            await once()
            said = ""
        except ConstellationError as error:
            if str(error) != said:
                _log.warning("will try again", extra={"reason": str(error)})
            said = str(error)
        await asyncio.sleep(seconds)
