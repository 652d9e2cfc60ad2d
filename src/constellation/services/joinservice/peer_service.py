"""Who talks to whom in the mesh, for nodes that have a service certificate: port 9091, mutual TLS.

A call waits up to 20 s for a list that is newer than the caller's. Nothing here is secret, and the
list is signed: the caller believes the signature, not this server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import Rejected, Unavailable
from constellation.kube.membership import member_by_name
from constellation.kube.service_identity import parse_identity
from constellation.rpc.errors import raise_status
from constellation.rpc.mutual_tls import peer_uris
from constellation.rpc.stubs.join_grpc import PeerServiceBase

if TYPE_CHECKING:
    from grpclib.server import Stream

    from constellation.rpc.stubs import join_pb2
    from constellation.services.joinservice.ledger import Ledger
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
        self, ledger: Ledger, *, tickets: Tickets, learned: Learned, cluster_id: bytes
    ) -> None:
        self._ledger = ledger
        self._tickets = tickets
        self._learned = learned
        self._cluster_id = cluster_id

    async def Peers(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.PeersRequest, join_pb2.PeerList]
    ) -> None:
        """Give the newest list, as soon as it is newer than the caller's."""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                raise Unavailable("the caller ended the call before its request")
            caller = parse_identity(peer_uris(stream), cluster_id=self._cluster_id)
            if member_by_name(self._ledger.membership, caller.name) is None:
                raise Rejected((f"{caller.name} is no member of this cluster",))
            await self._learned.called(caller.name, request.known_serial)
            await self._newer_than(request.known_serial)
            await stream.send_message(self._tickets.peers(self._ledger.membership))

    async def _newer_than(self, serial: int) -> None:
        changed = self._ledger.changed
        try:
            async with asyncio.timeout(_WAIT_S), changed:
                await changed.wait_for(lambda: self._ledger.membership.peers_serial > serial)
        except TimeoutError:
            return
