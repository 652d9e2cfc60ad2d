"""A new node looks for its cluster until one JoinService that it can believe gives it a ticket.

Each round asks the other control planes' own addresses in turn. A JoinService that is not this
cluster's is told nothing. From the ticket on there is no way back: a node that cannot go on
reboots itself.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import ConstellationError
from constellation.disk import state_disk
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import join_pb2
from constellation.services.bootstrapper.first_policy import first_policy
from constellation.services.bootstrapper.join_run import JoinRun, NewPlace
from constellation.services.bootstrapper.node_keys import fresh_keys
from constellation.services.bootstrapper.spent import leave_spent_boot
from constellation.services.join_addresses import join_servers
from constellation.services.join_channel import judged_channel
from constellation.services.machine import reboot_soon
from constellation.services.release_root import PINNED_ROOT
from constellation.services.steps import StepBook, run_steps

if TYPE_CHECKING:
    from constellation.providers.placement import Placement
    from constellation.providers.protocols import Instance, Metadata
    from constellation.rpc.agent_client import AgentClient
    from constellation.services.artifact_shelf import Shelf
    from constellation.services.bootstrapper.node_lock import NodeLock
    from constellation.services.bootstrapper.paths import Paths
    from constellation.services.join_channel import JoinServer
    from constellation.services.node_time import NodeTime
    from constellation.trust.cluster_policy import ClusterPolicy
    from constellation.trust.node_document import NodeDocument

__all__ = ["join_until_done"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 1.0
_JOIN_CALL_S = 60.0
_SETTLED_S = 20.0


async def join_until_done(
    *,
    document: NodeDocument,
    own: Instance,
    agent: AgentClient,
    lock: NodeLock,
    paths: Paths,
    time: NodeTime,
    provider: Metadata,
    placement: Placement | None,
) -> None:
    """Join, or go on with a join that was interrupted; ends when this node has its place."""
    joiner = _Joiner(
        document=document,
        own=own,
        agent=agent,
        lock=lock,
        paths=paths,
        time=time,
        placement=placement,
    )
    if paths.ticket.exists():
        await joiner.go_on()
        return
    pause = _FIRST_PAUSE_S
    while lock.held_by != "init":
        for address in await _addresses(provider, own):
            try:
                await joiner.attempt(address)
            except ConstellationError as error:
                _log.warning("no ticket", extra={"endpoint": address, "reason": str(error)})
            else:
                return
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


class _Joiner:
    def __init__(
        self,
        *,
        document: NodeDocument,
        own: Instance,
        agent: AgentClient,
        lock: NodeLock,
        paths: Paths,
        time: NodeTime,
        placement: Placement | None,
    ) -> None:
        self._document, self._own, self._agent = document, own, agent
        self._placement = placement
        self._lock, self._paths, self._time = lock, paths, time
        self._keys = fresh_keys()

    async def attempt(self, address: str) -> None:
        """Ask one JoinService, and use its ticket."""
        async with judged_channel(
            address,
            purpose="join-client",
            attester=self._agent,
            document=self._document,
            minimum_serial=1,
        ) as join_server:
            self._lock.take("join")
            with raise_ours(f"JoinService {address}"):
                ticket = await join_server.stub.Join(self._request(), timeout=_JOIN_CALL_S)
            self._time.say(ticket.time)
            joining = JoinRun(
                paths=self._paths,
                agent=self._agent,
                document=self._document,
                own=self._own,
                ticket=ticket,
                new=NewPlace(
                    keys=self._keys,
                    policy=first_policy(
                        ticket,
                        join_server.signed_policy,
                        document=self._document,
                        root=PINNED_ROOT,
                        now=clock.now_for_windows(),
                    ),
                    giver=address,
                ),
                policy=join_server.judged.policy,
                placement=self._placement,
                shelf=self._shelf(ticket, join_server.judged.policy),
            )
            await self._use(joining)
            await _settle(join_server, joining.node_name)

    async def go_on(self) -> None:
        """Use the ticket that an interrupted run kept."""
        ticket = join_pb2.JoinTicket.FromString(self._paths.ticket.read_bytes())
        policy = self._paths.kept_policy(self._document).verified()
        joining = JoinRun(
            paths=self._paths,
            agent=self._agent,
            document=self._document,
            own=self._own,
            ticket=ticket,
            new=None,
            policy=policy,
            placement=self._placement,
            shelf=self._shelf(ticket, policy),
        )
        await self._use(joining)

    def _shelf(self, ticket: join_pb2.JoinTicket, policy: ClusterPolicy) -> Shelf:
        return self._paths.shelf(
            policy.artifact_sources,
            own_address=self._own.address,
            inner=(ticket.pod_network, ticket.service_cidr, ticket.mesh_cidr),
        )

    def _request(self) -> join_pb2.JoinRequest:
        keys = self._keys.public
        return join_pb2.JoinRequest(
            instance_id=self._own.instance_id,
            role=str(self._own.role),
            address=self._own.address,
            disk_uuid=bytes.fromhex(state_disk.read_record().uuid),
            kubelet_client_public_key=keys.kubelet_client,
            kubelet_serving_public_key=keys.kubelet_serving,
            service_public_key=keys.service,
            mesh_public_key=keys.mesh,
            time=int(clock.now().timestamp()),
        )

    async def _use(self, joining: JoinRun) -> None:
        book = StepBook(self._paths.steps, kind="join")
        while True:
            try:
                await run_steps(joining.steps(), book=book, notify=_log_step)
            except ConstellationError as error:
                _log.exception("a step of joining failed", extra={"reason": str(error)})
                await leave_spent_boot(
                    state_disk.read_record().state, agent=self._agent, reboot=reboot_soon
                )
                await asyncio.sleep(_LONGEST_PAUSE_S)
            else:
                _log.info("this node has joined", extra={"node": joining.node_name})
                return


async def _settle(join_server: JoinServer, node_name: str) -> None:
    try:
        with raise_ours("JoinService"):
            await join_server.stub.Settled(
                join_pb2.SettledRequest(node_name=node_name), timeout=_SETTLED_S
            )
    except ConstellationError as error:
        # JoinServices see the Ready node themselves before the place lapses
        _log.warning("not settled", extra={"node": node_name, "reason": str(error)})


async def _addresses(provider: Metadata, own: Instance) -> tuple[str, ...]:
    try:
        return join_servers(await provider.peers(), own_address=own.address)
    except ConstellationError as error:
        _log.warning("no peers from the metadata API", extra={"reason": str(error)})
        return ()


async def _log_step(name: str, done: bool) -> None:
    _log.info("step", extra={"step": name, "state": "done" if done else "started"})
