"""What members ask each other: peers of the mesh, the newest policy; port 9091, mutual TLS.

Every node asks for peers; control planes exchange the cluster policy as well. A call for peers
waits up to 20 s for a list that is newer than the caller's. Nothing here is secret, and list and
policy are signed: the caller believes the signature, not this server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import Rejected, Unavailable
from constellation.kube.membership import NodeRole, member_by_name
from constellation.kube.service_identity import parse_identity
from constellation.rpc.errors import raise_status
from constellation.rpc.mutual_tls import peer_public_key, peer_uris
from constellation.rpc.stubs.join_grpc import PeerServiceBase

if TYPE_CHECKING:
    from typing import Any

    from grpclib.server import Stream

    from constellation.kube.membership import Member
    from constellation.rpc.stubs import join_pb2
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.policy_travel import PolicyTravel
    from constellation.services.joinservice.tickets import Tickets

__all__ = ["PORT", "Learned", "PeerHandlers"]

PORT = 9091
_WAIT_S = 20.0
_LISTENS_FOR_S = 25.0
"""A node that did not call for so long is not waited for."""


class Learned:
    """Which peer list each node has that polls here: its serial and when it last called."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}
        self._news = asyncio.Condition()

    async def called(self, name: str, serial: int) -> None:
        """Note that a node has the list `serial`."""
        self._known[name] = (serial, clock.monotonic_s())
        async with self._news:
            self._news.notify_all()

    async def wait(self, serial: int, *, deadline_s: float) -> None:
        """Wait until all nodes that poll here have `serial`, `deadline_s` at most."""

        def all_have_it() -> bool:
            since = clock.monotonic_s() - _LISTENS_FOR_S
            return all(has >= serial for has, at in self._known.values() if at >= since)

        try:
            async with asyncio.timeout(deadline_s), self._news:
                await self._news.wait_for(all_have_it)
        except TimeoutError:
            return


class PeerHandlers(PeerServiceBase):
    """The PeerService protocol."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        tickets: Tickets,
        learned: Learned,
        travel: PolicyTravel,
        cluster_id: bytes,
    ) -> None:
        self._ledger = ledger
        self._tickets = tickets
        self._learned = learned
        self._travel = travel
        self._cluster_id = cluster_id

    async def Peers(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.PeersRequest, join_pb2.PeerList]
    ) -> None:
        """Give the newest list, as soon as it is newer than the caller's."""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                raise Unavailable("the caller ended the call before its request")
            caller = self._member(stream)
            await self._learned.called(caller.name, request.known_serial)
            await self._newer_than(request.known_serial)
            await stream.send_message(self._tickets.peers(self._ledger.membership))

    async def ExchangePolicy(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.PolicyStand, join_pb2.PolicyStand]
    ) -> None:
        """Take a newer cluster policy, say which one is obeyed here."""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                raise Unavailable("the caller ended the call before its request")
            caller = self._member(stream)
            if caller.role is not NodeRole.CONTROL_PLANE:
                raise Rejected((f"{caller.name} is a {caller.role}, expected a control plane",))
            await stream.send_message(self._travel.answer(request))

    def _member(self, stream: Stream[Any, Any]) -> Member:
        caller = parse_identity(peer_uris(stream), cluster_id=self._cluster_id)
        member = member_by_name(self._ledger.membership, caller.name)
        if member is None or member.role is not caller.role:
            raise Rejected((f"{caller.name} is no member of this cluster",))
        if member.service_public_key != peer_public_key(stream):
            # the same machine joined anew: a certificate of before is good for hours still
            raise Rejected((f"{caller.name}: its certificate is of another life of this name",))
        return member

    async def _newer_than(self, serial: int) -> None:
        changed = self._ledger.changed
        try:
            async with asyncio.timeout(_WAIT_S), changed:
                await changed.wait_for(lambda: self._ledger.membership.peers_serial > serial)
        except TimeoutError:
            return
