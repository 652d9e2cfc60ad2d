"""Serving gRPC to appraised peers: a handler runs only for a peer whose evidence was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constellation.atls.binding import NONCE_BYTES
from constellation.atls.channel import EXTRA_INFO, Appraise, ChannelAttester, Connection, Peer
from constellation.atls.frames import Hello
from constellation.atls.grpc_bounds import BoundedServer
from constellation.atls.handshake import Expected, Handshake
from constellation.atls.limits import Gate, Limits, Place
from constellation.atls.tls import context
from constellation.base import clock
from constellation.base.errors import ConstellationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from grpclib._typing import IServable
    from grpclib.server import Stream

__all__ = [
    "Appraise",
    "AtlsServer",
    "ChannelAttester",
    "Refused",
    "ServerPeer",
    "owner_proven",
    "peer_of",
    "serve",
]

ServerPeer = Peer
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A peer that did not get in: for the join log. `purpose` is what it claimed, or empty."""

    remote_address: str
    purpose: str
    error: ConstellationError


class AtlsServer:
    """A listening server; made by `serve`."""

    def __init__(
        self,
        handlers: Collection[IServable],
        *,
        purpose: str,
        attester: ChannelAttester,
        appraisers: Mapping[str, Appraise],
        limits: Limits,
        on_refused: Callable[[Refused], None],
    ) -> None:
        self._grpc = BoundedServer(handlers)
        self._purpose, self._attester, self._appraisers = purpose, attester, appraisers
        self._expected = Expected(
            purposes=frozenset(appraisers) - {""}, unattested="" in appraisers
        )
        self._limits, self._gate = limits, Gate(limits)
        self._on_refused = on_refused
        self._context = context(server=True, now=clock.now())
        self._live: dict[_Served, asyncio.Task[None] | None] = {}
        self._unproven: dict[_Served, asyncio.TimerHandle] = {}
        self._listener: asyncio.Server | None = None
        self._deserted = asyncio.Event()

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        assert self._listener is not None  # noqa: S101 - `serve` started it
        return int(self._listener.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Begin to listen.

        Raises:
            Unavailable: the address is taken or not this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._accept, host, port)
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error

    def close(self) -> None:
        """Stop listening and end every connection."""
        if self._listener is not None:
            self._listener.close()
        for connection, task in list(self._live.items()):
            if task is not None:
                task.cancel()
            connection.abort()

    async def drain(self, *, within_s: float) -> None:
        """Let nobody in any more, wait until all have gone by themselves, then end the others.

        Who was just answered reads the answer first: a connection that is cut off can lose it.
        """
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._live:
                    self._deserted.clear()
                    await self._deserted.wait()
        self.close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until `close` has taken effect."""
        tasks = [t for t in self._live.values() if t is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            await self._listener.wait_closed()

    def _accept(self) -> Connection:
        hello = Hello(purpose=self._purpose, nonce=secrets.token_bytes(NONCE_BYTES), attests=True)
        return _Served(
            self,
            self._context,
            Handshake("server", hello=hello, expected=self._expected),
            purpose=self._purpose,
            attester=self._attester,
            appraisers=self._appraisers,
        )

    def made(self, connection: _Served) -> None:
        """Begin a connection's handshake, if the limits let it."""
        address = connection.remote_address
        place = self._gate.enter(
            address, now_s=clock.monotonic_s(), give_up=lambda: self._evict(connection)
        )
        if place is None:
            _LOG.warning("too many connections, one was closed", extra={"address": address})
            connection.abort()
            return
        connection.place = place
        task = asyncio.get_running_loop().create_task(self._handshake(connection, place))
        self._live[connection] = task

    def _evict(self, connection: _Served) -> None:
        _LOG.warning("a handshake gave its place up", extra={"address": connection.remote_address})
        connection.abort()

    def lost(self, connection: _Served) -> None:
        """Forget a connection."""
        self._live.pop(connection, None)
        self._deserted.set()
        self.proven(connection)
        if connection.place is not None:
            self._gate.left(connection.place)

    def proven(self, connection: _Served) -> None:
        """Count a peer that need not attest as known: a handler has seen its other proof."""
        timer = self._unproven.pop(connection, None)
        if timer is not None and connection.place is not None:
            timer.cancel()
            self._gate.settled(connection.place)

    def _wait_for_proof(self, connection: _Served) -> bool:
        """Keep a peer without evidence among the handshakes, and not longer than one of them."""
        if connection.attested or connection not in self._live:
            return False
        loop = asyncio.get_running_loop()
        self._unproven[connection] = loop.call_later(self._limits.handshake_s, connection.abort)
        return True

    async def _handshake(self, connection: _Served, place: Place) -> None:
        address = place.address
        refused = opened = False
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                await connection.run(self._application)
            opened = True
        # an error is not kept beyond its clause: its traceback holds this frame, and with it TLS'
        # memory of a connection that is gone, until the collector comes
        except ConstellationError as error:
            refused = True
            self._tell(connection, address, error)
        except TimeoutError:
            refused = True
            limit = f"{self._limits.handshake_s:g} s"
            self._tell(
                connection, address, Unavailable(f"the handshake did not end within {limit}")
            )
            connection.abort()
        except Exception:  # noqa: BLE001 - a task's top
            _LOG.exception("handshake failed by a bug", extra={"address": address})
            connection.abort()
        finally:
            if not (opened and self._wait_for_proof(connection)):
                self._gate.settled(place)
        if refused:
            await connection.linger()
        if connection in self._live:
            self._live[connection] = None

    def _tell(self, connection: _Served, address: str, error: ConstellationError) -> None:
        self._on_refused(
            Refused(remote_address=address, purpose=connection.claimed_purpose, error=error)
        )

    def _application(self) -> asyncio.Protocol:
        return self._grpc._protocol_factory()  # noqa: SLF001 - grpclib's one hook for transports


class _Served(Connection):
    """A connection that tells its server when it begins and ends."""

    def __init__(self, owner: AtlsServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, server=True, **kwargs)
        self._owner = owner
        self.place: Place | None = None

    def proven(self) -> None:
        """See `AtlsServer.proven`."""
        self._owner.proven(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner.lost(self)


async def serve(
    handlers: Collection[IServable],
    *,
    host: str,
    port: int,
    purpose: str,
    attester: ChannelAttester,
    appraisers: Mapping[str, Appraise],
    limits: Limits,
    on_refused: Callable[[Refused], None] | None = None,
) -> AtlsServer:
    """Listen, attest to every peer, appraise those that must attest, then serve gRPC.

    Args:
        handlers: gRPC services; `peer_of(stream)` gives them the peer.
        host: IP address to listen on.
        port: TCP port; 0 takes a free one, see `AtlsServer.port`.
        purpose: of this side's evidence, e.g. `join-server`.
        attester: makes this side's evidence.
        appraisers: by the peer's purpose; the key "" lets peers in that do not attest (its value is
            never called): their handlers must ask for another proof, and call `owner_proven`.
        limits: bounds before a peer is known.
        on_refused: told of every peer that did not get in.

    Raises:
        Unavailable: the address is taken or not this machine's.
    """
    server = AtlsServer(
        handlers,
        purpose=purpose,
        attester=attester,
        appraisers=appraisers,
        limits=limits,
        on_refused=on_refused or _log_refused,
    )
    await server.start(host, port)
    return server


def peer_of(stream: Stream[Any, Any]) -> ServerPeer:
    """Give the peer of the call that a handler serves.

    Raises:
        ValueError: the call did not come over aTLS.
    """
    peer = stream.peer._transport.get_extra_info(EXTRA_INFO)  # noqa: SLF001 - grpclib has no other way
    if not isinstance(peer, Peer):
        raise ValueError(  # noqa: TRY004 - a bug in wiring, not in types
            "this call did not come over an attested channel"
        )
    return peer


def owner_proven(stream: Stream[Any, Any]) -> None:
    """Keep the connection of a peer that does not attest: its handler has seen another proof.

    Until then it counts as a handshake, and is ended after `Limits.handshake_s`.
    """
    connection = stream.peer._transport  # noqa: SLF001 - grpclib has no other way
    if not isinstance(connection, _Served):
        raise ValueError("this call did not come over an attested channel")  # noqa: TRY004 - a bug
    connection.proven()


def _log_refused(refused: Refused) -> None:
    _LOG.warning(
        "a peer was refused",
        extra={
            "address": refused.remote_address,
            "purpose": refused.purpose,
            "reason": str(refused.error),
        },
    )
