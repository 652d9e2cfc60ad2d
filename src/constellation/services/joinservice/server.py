"""One control plane's JoinService: three listeners, and loops that keep log and world in step."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from constellation.atls import server as atls_server
from constellation.atls.limits import USUAL
from constellation.base import clock
from constellation.base.errors import ConstellationError, Unavailable
from constellation.rpc import mutual_tls
from constellation.services.joinservice import housekeep
from constellation.services.joinservice.handlers import JOIN, REJOIN, RENEW, JoinHandlers
from constellation.services.joinservice.peer_service import PORT as PEER_PORT
from constellation.services.joinservice.peer_service import Learned, PeerHandlers
from constellation.services.joinservice.policy_service import (
    POLICY_PORT,
    POLICY_SERVER,
    PolicyHandlers,
)
from constellation.services.joinservice.policy_travel import PeerCalls, PolicyTravel
from constellation.services.joinservice.refused import Refusals
from constellation.services.joinservice.tickets import Tickets
from constellation.services.kept_access import KeptAccess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from constellation.atls.channel import Appraise, ChannelAttester
    from constellation.atls.server import AtlsServer
    from constellation.attestation.model import AttestationResult
    from constellation.kube.etcd import EtcdMember
    from constellation.kube.membership import Membership
    from constellation.services.joinservice.handlers import DiskKeys, Provider
    from constellation.services.joinservice.housekeep import Observed
    from constellation.services.joinservice.kubernetes_version import ApiVersions
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["JOIN_PORT", "JoinServer", "Ports", "World"]

JOIN_PORT = 30090
_SERVER_PURPOSE = "join-server"
_FOLLOW_EVERY_S = 1.0
_HOUSEKEEP_EVERY_S = 2.0
_EXCHANGE_EVERY_S = 10.0
_log = logging.getLogger(__name__)


class World(Protocol):
    """What housekeeping looks at."""

    async def observe(self) -> Observed:
        """Ask Kubernetes, the provider and etcd. Raises Unavailable if one does not answer."""
        ...

    async def remove_member(self, member: EtcdMember) -> None:
        """Take a member out of etcd. Raises Unavailable."""
        ...

    async def publish(self, membership: Membership) -> None:
        """Tell the API servers whose kubelets belong to live members. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where one JoinService listens: for nodes, for peers (mutual TLS), for the owner."""

    join: int
    peers: int
    policy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinServer:
    """Everything that runs; ports that are 0 take free ones (tests).

    `appraise` judges nodes that join or come back, `appraise_given` those that renew certificates.
    `pinned_root` is the root metadata (TUF) by which this JoinService judges releases.
    """

    files: NodeFiles
    kept: KeptPolicy
    ledger: Ledger
    attester: ChannelAttester
    appraise: Appraise
    appraise_given: Appraise
    provider: Provider
    keys: DiskKeys
    world: World
    versions: ApiVersions
    pinned_root: bytes
    own_name: str
    host: str
    join_port: int = JOIN_PORT
    peer_port: int = PEER_PORT
    policy_port: int = POLICY_PORT

    async def run(self, *, started: Callable[[Ports], None]) -> None:
        """Serve until cancelled; `started` gets the ports.

        Raises:
            Unavailable: an address is taken, or a file is not on the disk.
        """
        tickets, learned = Tickets(files=self.files), Learned()
        refusals = Refusals(self.ledger)
        travel = PolicyTravel(
            self.kept,
            own_name=self.own_name,
            pinned_root=self.pinned_root,
            join_key=self.files.join_key,
            membership=lambda: self.ledger.membership,
            ask=PeerCalls(self.files.service_tls(), port=self.peer_port),
            access=KeptAccess(state=self.files.state).taken,
        )
        peers = await mutual_tls.serve(
            [self._peer_handlers(tickets, learned, travel)],
            host=self.host,
            port=self.peer_port,
            tls=self.files.service_tls(),
        )
        join = await self._serve_join(tickets, learned, refusals)
        policy = await self._serve_policy(travel)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(refusals.run())
                tasks.create_task(_every(_FOLLOW_EVERY_S, self._follow))
                tasks.create_task(_every(_HOUSEKEEP_EVERY_S, _Housekeeper(self).once))
                tasks.create_task(_every(_EXCHANGE_EVERY_S, travel.once))
                started(Ports(join=join.port, peers=peers.port, policy=policy.port))
        finally:
            for listening in (join, policy, peers):
                listening.close()
            for listening in (join, policy, peers):
                await listening.wait_closed()

    def _peer_handlers(
        self, tickets: Tickets, learned: Learned, travel: PolicyTravel
    ) -> PeerHandlers:
        return PeerHandlers(
            self.ledger,
            tickets=tickets,
            learned=learned,
            travel=travel,
            cluster_id=self.kept.document.cluster_id,
        )

    async def _serve_join(
        self, tickets: Tickets, learned: Learned, refusals: Refusals
    ) -> AtlsServer:
        handlers = JoinHandlers(
            files=self.files,
            kept=self.kept,
            ledger=self.ledger,
            provider=self.provider,
            keys=self.keys,
            tickets=tickets,
            learned=learned,
            refusals=refusals,
            publish=self.world.publish,
            versions=self.versions,
        )
        return await atls_server.serve(
            [handlers],
            host=self.host,
            port=self.join_port,
            purpose=_SERVER_PURPOSE,
            attester=self.attester,
            appraisers={
                JOIN: self.appraise,
                REJOIN: self.appraise,
                RENEW: self.appraise_given,
            },
            limits=USUAL,
            on_refused=lambda r: refusals.record(
                r.error, address=r.remote_address, instance_id="", role=""
            ),
        )

    async def _serve_policy(self, travel: PolicyTravel) -> AtlsServer:
        handlers = PolicyHandlers(files=self.files, kept=self.kept, travel=travel)
        return await atls_server.serve(
            [handlers],
            host=self.host,
            port=self.policy_port,
            purpose=POLICY_SERVER,
            attester=self.attester,
            appraisers={"": _nobody_attests},
            limits=USUAL,
        )

    async def _follow(self) -> None:
        await self.ledger.follow(now=clock.seconds_for_windows())


class _Housekeeper:
    """Remembers, between looks, which node has been gone, which reservation stands since when."""

    def __init__(self, server: JoinServer) -> None:
        self._server = server
        self._gone: dict[str, float] = {}
        self._standing: dict[int, float] = {}
        self._leaving: frozenset[str] = frozenset()

    async def once(self) -> None:
        ledger = self._server.ledger
        self._standing = housekeep.standing_since(
            self._standing, ledger.membership, now_s=clock.monotonic_s()
        )
        observed = await self._server.world.observe()
        self._gone = housekeep.gone_since(
            self._gone, ledger.membership, observed, now_s=clock.monotonic_s()
        )
        self._leaving = housekeep.seen_leaving(self._leaving, observed)
        for _ in range(len(ledger.membership.nodes) + len(ledger.membership.reservations) + 1):
            now = clock.seconds_for_windows()
            entry = housekeep.next_entry(
                ledger.membership,
                observed,
                gone=self._gone,
                standing=self._standing,
                leaving=self._leaving,
                now=now,
                now_s=clock.monotonic_s(),
            )
            if entry is None:
                break
            due, standing = entry, self._standing
            await ledger.write(
                lambda m, due=due, standing=standing: housekeep.still_due(  # type: ignore[misc]
                    m, due, standing=standing
                ),
                now=now,
            )
            _log.info("membership changed", extra={"kind": str(due.kind), "node": due.name})
        await self._server.world.publish(ledger.membership)
        await self._remove_stale_learner(observed)

    async def _remove_stale_learner(self, observed: Observed) -> None:
        ledger, now = self._server.ledger, clock.seconds_for_windows()
        if housekeep.stale_learner(ledger.membership, observed) is None:
            return
        # another JoinService may have given the lease since then
        newest = await ledger.write(lambda _: None, now=now)
        learner = housekeep.stale_learner(newest, observed)
        if learner is not None:
            await self._server.world.remove_member(learner)
            _log.warning("etcd learner without a lease removed", extra={"address": learner.address})


async def _every(seconds: float, once: Callable[[], Awaitable[None]]) -> None:
    """Repeat for ever; what is `Unavailable` comes back, anything else of ours is said aloud."""
    said = ""
    while True:
        try:
            await once()
            said = ""
        except ConstellationError as error:
            if str(error) != said:
                level = logging.INFO if isinstance(error, Unavailable) else logging.ERROR
                _log.log(level, "will try again", extra={"reason": str(error)})
            said = str(error)
        await asyncio.sleep(seconds)


def _nobody_attests(*_: object) -> AttestationResult:
    raise ValueError("the owner does not attest")
