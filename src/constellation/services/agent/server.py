"""Answers the programs of this node on their unix sockets: evidence, and PCR 15 once a boot.

The agent is the only one that uses the TPM. It builds every binding itself, from what the caller
saw of its channel and from the purpose, which the caller's socket must allow: nobody passes what is
quoted. Requests are served one at a time, since a quote and its event log must be of one moment.
Who connects is checked before a byte is read (unix(7), SO_PEERCRED).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import TYPE_CHECKING, Protocol

from constellation.atls.binding import channel_binding, verify_binding
from constellation.atls.grpc_bounds import LocalServer
from constellation.base.errors import FormatError
from constellation.rpc.agent_client import agent_socket
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import agent_pb2
from constellation.rpc.stubs.agent_grpc import AttestationAgentBase
from constellation.services.agent.allowed import require_give, require_purpose, require_verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.attestation.model import Binding, Evidence, Variant
    from constellation.services.agent.allowed import Door

__all__ = ["AgentService", "Machine", "serve"]

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_MAX_REQUEST_BYTES = 4096
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Machine(Protocol):
    """What the agent owns: an attester, and the register that says whose node this is."""

    variant: Variant

    async def attester_id(self) -> bytes:
        """Give the identity of this machine (32 bytes)."""
        ...

    async def attest(self, binding: Binding) -> Evidence:
        """Attest; see `Attester`."""
        ...

    async def is_given(self) -> bool:
        """Say whether the node was given to a cluster since power-on."""
        ...

    async def give(self, cluster_id: bytes) -> None:
        """Give the node to a cluster; `Conflict` if it was given before."""
        ...


class AgentService(AttestationAgentBase):
    """The agent behind one door; `turn` is shared by all doors of one machine."""

    def __init__(self, machine: Machine, *, door: Door, turn: asyncio.Lock) -> None:
        self._machine = machine
        self._door = door
        self._turn = turn

    async def Describe(  # noqa: N802 - the protocol's name
        self, stream: Stream[agent_pb2.DescribeRequest, agent_pb2.Description]
    ) -> None:
        """Say what this machine attests with, who it is, and whether it was given."""
        await stream.recv_message()
        with raise_status():
            async with self._turn:
                attester_id = await self._machine.attester_id()
                given = await self._machine.is_given()
        await stream.send_message(
            agent_pb2.Description(
                variant=str(self._machine.variant),
                attester_id=attester_id,
                given_to_cluster=given,
            )
        )

    async def AttestChannel(  # noqa: N802 - the protocol's name
        self, stream: Stream[agent_pb2.AttestChannelRequest, agent_pb2.AttestReply]
    ) -> None:
        """Attest for one aTLS channel."""
        request = await stream.recv_message()
        if request is None:
            return
        with raise_status():
            require_purpose(self._door, request.purpose)
            _sizes(
                exporter=request.exporter,
                spki_digest=request.spki_digest,
                peer_nonce=request.peer_nonce,
            )
            binding = channel_binding(
                purpose=request.purpose,
                variant=self._machine.variant,
                exporter=request.exporter,
                spki_digest=request.spki_digest,
                peer_nonce=request.peer_nonce,
            )
            reply = await self._attest(binding)
        await stream.send_message(reply)

    async def AttestVerify(  # noqa: N802 - the protocol's name
        self, stream: Stream[agent_pb2.AttestVerifyRequest, agent_pb2.AttestReply]
    ) -> None:
        """Attest for `verify` calls."""
        request = await stream.recv_message()
        if request is None:
            return
        with raise_status():
            require_verify(self._door)
            _sizes(nonces_root=request.nonces_root, cluster_ca_digest=request.cluster_ca_digest)
            binding = verify_binding(
                nonces_root=request.nonces_root, cluster_ca_digest=request.cluster_ca_digest
            )
            reply = await self._attest(binding)
        await stream.send_message(reply)

    async def GiveToCluster(  # noqa: N802 - the protocol's name
        self, stream: Stream[agent_pb2.GiveToClusterRequest, agent_pb2.GiveToClusterReply]
    ) -> None:
        """Extend PCR 15 by the clusterID, once a boot."""
        request = await stream.recv_message()
        if request is None:
            return
        with raise_status():
            require_give(self._door)
            _sizes(cluster_id=request.cluster_id)
            async with self._turn:
                await self._machine.give(request.cluster_id)
        _log.info("given to a cluster", extra={"socket": self._door.name})
        await stream.send_message(agent_pb2.GiveToClusterReply())

    async def _attest(self, binding: Binding) -> agent_pb2.AttestReply:
        async with self._turn:
            evidence = await self._machine.attest(binding)
        return agent_pb2.AttestReply(variant=str(evidence.variant), evidence=evidence.data)


async def serve(
    machine: Machine, *, doors: tuple[Door, ...], folder: Path
) -> tuple[asyncio.Server, ...]:
    """Open one socket a door, in a folder of its own; close the servers to end.

    A path appears once its socket answers, so that whoever waits for it can connect.
    """
    turn = asyncio.Lock()
    servers: list[asyncio.Server] = []
    for door in doors:
        service = LocalServer(
            [AgentService(machine, door=door, turn=turn)], max_message_bytes=_MAX_REQUEST_BYTES
        )
        factory = _gate(door, service._protocol_factory)  # noqa: SLF001 - grpclib's one hook
        listening = await asyncio.to_thread(_bind, folder, door)
        servers.append(await asyncio.get_running_loop().create_unix_server(factory, sock=listening))
        path = agent_socket(door.name, folder=folder)
        await asyncio.to_thread(_hidden(path).rename, path)
    return tuple(servers)


def _bind(folder: Path, door: Door) -> socket.socket:
    path = _hidden(agent_socket(door.name, folder=folder))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    # connecting needs the right to write; who else may is the gate's matter
    path.chmod(0o666 if door.uid else 0o600)
    return listening


def _hidden(socket_path: Path) -> Path:
    return socket_path.with_name(f".{socket_path.name}")


def _gate(door: Door, inner: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
    return lambda: _Gate(door, inner)


class _Gate(asyncio.Protocol):
    """Lets a connection through to gRPC if its user is root or the door's."""

    def __init__(self, door: Door, inner: Callable[[], asyncio.Protocol]) -> None:
        self._door = door
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look at the peer's uid, then hand the connection over or cut it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream socket's
        peer = transport.get_extra_info("socket")
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(raw)
        if uid not in (0, self._door.uid):
            _log.warning("refused a caller", extra={"socket": self._door.name, "uid": uid})
            transport.abort()
            return
        protocol = self._inner()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _sizes(**values: bytes) -> None:
    for name, value in values.items():
        if len(value) != _DIGEST_BYTES:
            raise FormatError(f"{name}: {len(value)} bytes, want {_DIGEST_BYTES}")
