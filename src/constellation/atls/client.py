"""Connecting to an attested server: no gRPC channel before its evidence was accepted."""

from __future__ import annotations

import asyncio
import functools
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from constellation.atls.binding import NONCE_BYTES
from constellation.atls.channel import Appraise, ChannelAttester, Connection, Peer
from constellation.atls.frames import Hello
from constellation.atls.grpc_bounds import BoundedChannel
from constellation.atls.handshake import Expected, Handshake
from constellation.atls.tls import context
from constellation.base import clock
from constellation.base.errors import ConstellationError, Unavailable

if TYPE_CHECKING:
    from grpclib.client import Channel
    from grpclib.protocol import H2Protocol
    from OpenSSL import SSL

    from constellation.attestation.model import AttestationResult

__all__ = ["Appraise", "AtlsChannel", "ChannelAttester", "connect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlsChannel:
    """An open channel to a server that was appraised. `grpc` is for the generated stubs."""

    grpc: Channel
    peer: AttestationResult
    remote_address: str
    _peer: Peer
    _connection: Connection

    def exporter(self, label: str) -> bytes:
        """Give 32 bytes of this channel for a signature; see `atls.channel.Peer.exporter`."""
        return self._peer.exporter(label)

    def close(self) -> None:
        """End the channel; calls that are under way fail."""
        self.grpc.close()
        self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _OneConnection(BoundedChannel):
    """A gRPC channel over a connection that exists; it never connects by itself."""

    async def _create_connection(self) -> H2Protocol:
        raise Unavailable("the attested channel has ended", hint="connect again")

    def attach(self) -> H2Protocol:
        self._protocol = self._protocol_factory()
        return self._protocol


async def connect(
    host: str,
    port: int,
    *,
    purpose: str,
    server_purpose: str,
    attester: ChannelAttester | None,
    appraise: Appraise,
    deadline_s: float,
) -> AtlsChannel:
    """Connect, show evidence if there is an attester, appraise the server, open gRPC.

    Args:
        host: name or IP address.
        port: TCP port.
        purpose: this side's, e.g. `join-client`; `init-client` for the CLI.
        server_purpose: what the server's evidence must be for, e.g. `join-server`.
        attester: makes this side's evidence; None if it has none to show.
        appraise: judges the server's evidence against its binding.
        deadline_s: for everything until the channel is open.

    Raises:
        FormatError, Untrusted, Rejected: this side's judgement, or the server's about us.
        Unavailable: no connection, or not open within `deadline_s`.
    """
    handshake = Handshake(
        "client",
        hello=Hello(
            purpose=purpose, nonce=secrets.token_bytes(NONCE_BYTES), attests=attester is not None
        ),
        expected=Expected(purposes=frozenset({server_purpose}), unattested=False),
    )
    connection = Connection(
        _context(),
        handshake,
        server=False,
        purpose=purpose,
        attester=attester,
        appraisers={server_purpose: appraise},
    )
    grpc = _OneConnection(host, port)
    peer = await _open(connection, grpc, host, port, deadline_s=deadline_s)
    return AtlsChannel(
        grpc=grpc,
        peer=cast("AttestationResult", peer.result),  # Expected.unattested is False
        remote_address=peer.remote_address,
        _peer=peer,
        _connection=connection,
    )


@functools.cache
def _context() -> SSL.Context:
    # one key a process: what ties evidence to a channel is the exporter, which is never the same
    return context(server=False, now=clock.now())


async def _open(
    connection: Connection, grpc: _OneConnection, host: str, port: int, *, deadline_s: float
) -> Peer:
    try:
        async with asyncio.timeout(deadline_s):
            await _tcp(connection, host, port)
            return await connection.run(grpc.attach)
    except TimeoutError:
        connection.abort()
        raise Unavailable(
            f"{host}:{port} did not finish the attested handshake within {deadline_s:g} s"
        ) from None
    except ConstellationError:
        await connection.linger()
        raise
    except BaseException:
        connection.abort()
        raise


async def _tcp(connection: Connection, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: connection, host, port)
    except (OSError, socket.gaierror) as error:
        raise Unavailable(f"{host}:{port} cannot be reached: {error.strerror or error}") from error
