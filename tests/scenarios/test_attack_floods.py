"""Attacks on what a server keeps for peers that have proven nothing: memory, places, time.

Beside each attack stands its control case: the honest peer is served all the same.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest
from grpclib.exceptions import GRPCError, StreamTerminatedError

from constellation.atls import client, server
from constellation.atls.grpc_bounds import (
    MAX_CALLS,
    MAX_MESSAGE_BYTES,
    MAX_UNREAD_OPEN_BYTES,
    BoundedChannel,
    OpenServer,
)
from constellation.atls.limits import Limits
from constellation.attestation.policy import Exactly
from constellation.base.errors import ConstellationError
from constellation.rpc.stubs.key_grpc import KeyServiceBase, KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyReply, GetDataKeyRequest
from tests.fakes.machines import Maker

if TYPE_CHECKING:
    from grpclib import protocol
    from grpclib.client import Channel
    from grpclib.server import Stream

    from constellation.attestation.model import AttestationResult, Binding, Evidence

GOOD = bytes([1]) * 32
PROOF = "the owner"


class Owned(KeyServiceBase):
    """Acts for whoever shows the proof; `waiting` calls have not sent their message."""

    def __init__(self) -> None:
        self.waiting = 0
        self.proves = True

    async def GetDataKey(  # noqa: N802 - the name in key.proto
        self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
    ) -> None:
        self.waiting += 1
        request = await stream.recv_message()
        self.waiting -= 1
        assert request is not None
        if request.id == PROOF and self.proves:
            server.owner_proven(stream)
        await stream.send_message(GetDataKeyReply(key=GOOD))


def nobody_attests(_evidence: Evidence, _binding: Binding) -> AttestationResult:
    raise ValueError("nobody attests")


class World:
    def __init__(self) -> None:
        maker = Maker()
        self.node, self.owned = maker.machine(pcr4=GOOD), Owned()
        self.appraise = maker.appraiser({"pcr4": Exactly(GOOD)})

    async def serve(self, limits: Limits) -> server.AtlsServer:
        return await server.serve(
            [self.owned],
            host="127.0.0.1",
            port=0,
            purpose="init-server",
            attester=self.node,
            appraisers={"": nobody_attests},
            limits=limits,
        )

    async def connect(self, port: int) -> client.AtlsChannel:
        return await client.connect(
            "127.0.0.1",
            port,
            purpose="init-client",
            server_purpose="init-server",
            attester=None,
            appraise=self.appraise,
            deadline_s=5,
        )


def limits(*, seconds: float) -> Limits:
    return Limits(
        handshake_s=seconds, handshakes=3, handshakes_per_address=3, connections=20, per_minute=9999
    )


async def ask(channel: client.AtlsChannel, word: str) -> bytes:
    reply = await KeyServiceStub(channel.grpc).GetDataKey(GetDataKeyRequest(id=word), timeout=5)
    return reply.key


async def open_call(channel: Channel, claimed_bytes: int) -> protocol.Stream:
    """Begin a call whose message claims a size, and send nothing of it."""
    protocol = await channel.__connect__()
    stream = protocol.processor.connection.create_stream()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/constellation.key.v1.KeyService/GetDataKey"),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc+proto"),
    ]
    await stream.send_request(headers, _processor=protocol.processor)
    await stream.send_data(b"\0" + struct.pack(">I", claimed_bytes))
    return stream


@pytest.fixture
def world() -> World:
    return World()


async def test_peers_that_prove_nothing_lose_their_place_and_the_owner_is_served(
    world: World,
) -> None:
    listening = await world.serve(limits(seconds=0.6))
    idle = [await world.connect(listening.port) for _ in range(3)]
    with pytest.raises(ConstellationError):
        await world.connect(listening.port)
    await asyncio.sleep(0.8)
    async with await world.connect(listening.port) as owner:
        assert await ask(owner, PROOF) == GOOD
        await asyncio.sleep(0.8)
        assert await ask(owner, "still the same connection") == GOOD
    for channel in idle:
        with pytest.raises((ConstellationError, StreamTerminatedError, OSError)):
            await ask(channel, "too late")
        channel.close()
    listening.close()
    await listening.wait_closed()


async def test_a_message_that_claims_gigabytes_is_refused_by_its_header(world: World) -> None:
    listening = await world.serve(limits(seconds=5))
    async with await world.connect(listening.port) as channel:
        stream = await open_call(channel.grpc, MAX_MESSAGE_BYTES + 1)
        trailers = dict(await asyncio.wait_for(stream.recv_headers(), 5))
        assert trailers["grpc-status"] == "8"
        assert await ask(channel, PROOF) == GOOD
    listening.close()
    await listening.wait_closed()


async def test_a_false_server_s_endless_reply_is_not_read(world: World) -> None:
    class Endless(Owned):
        async def GetDataKey(  # noqa: N802 - the name in key.proto
            self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
        ) -> None:
            await stream.recv_message()
            await stream.send_message(GetDataKeyReply(key=bytes(MAX_MESSAGE_BYTES + 1)))

    world.owned = Endless()
    listening = await world.serve(limits(seconds=5))
    async with await world.connect(listening.port) as channel:
        with pytest.raises(GRPCError, match="at most"):
            await ask(channel, "x")
    listening.close()
    await listening.wait_closed()


async def test_calls_of_one_connection_are_bounded(world: World) -> None:
    listening = await world.serve(limits(seconds=5))
    async with await world.connect(listening.port) as channel:
        for _ in range(MAX_CALLS):
            await open_call(channel.grpc, 10)
        with pytest.raises((ConstellationError, StreamTerminatedError, OSError)):
            await ask(channel, "one more")
        assert world.owned.waiting <= MAX_CALLS + 1
    async with await world.connect(listening.port) as channel:
        assert await ask(channel, PROOF) == GOOD
    listening.close()
    await listening.wait_closed()


async def test_an_open_port_bounds_connections_their_life_and_every_message(world: World) -> None:
    world.owned.proves = False
    opened = OpenServer(
        [world.owned],
        limits=limits(seconds=0.6),
        life_s=0.6,
        max_message_bytes=64,
        max_unread_bytes=MAX_UNREAD_OPEN_BYTES,
    )
    await opened.start("127.0.0.1", 0)
    port = opened._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    idle = [BoundedChannel("127.0.0.1", port) for _ in range(4)]
    try:
        for channel in idle[:3]:
            await channel.__connect__()
        with pytest.raises((StreamTerminatedError, OSError)):
            await KeyServiceStub(idle[3]).GetDataKey(GetDataKeyRequest(id="x"), timeout=5)
        await asyncio.sleep(0.8)
        honest = KeyServiceStub(idle[3])
        assert (await honest.GetDataKey(GetDataKeyRequest(id="x"), timeout=5)).key == GOOD
        with pytest.raises(GRPCError, match="at most 64"):
            await honest.GetDataKey(GetDataKeyRequest(id="x" * 100), timeout=5)
    finally:
        for channel in idle:
            channel.close()
        opened.close()
        await opened.wait_closed()
