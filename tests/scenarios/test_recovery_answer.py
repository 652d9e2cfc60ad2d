"""The owner hears what came of a recovery, although the node's server ends right after it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from constellation.atls import client, server
from constellation.atls.limits import USUAL
from constellation.base.errors import ConstellationError, Unavailable
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import recover_pb2
from constellation.rpc.stubs.recover_grpc import RecoveryServiceStub
from constellation.services.diskmapper.recovery import RecoveryService
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, prove_owner_channel
from tests.scenarios.test_attack_false_cli import (
    CLUSTER_ID,
    DOCUMENT,
    MASTER,
    OWNER,
    UUID,
    Node,
    nobody_attests,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.services.diskmapper.unlock import Unlock

ON_ITS_WAY_S = 0.1


@contextlib.asynccontextmanager
async def load_balancer(port: int) -> AsyncIterator[int]:
    """A load balancer that takes its time, and forgets what is on its way when a side ends."""

    async def forward(
        source: asyncio.StreamReader, target: asyncio.StreamWriter, *, slow: bool
    ) -> None:
        loop, ahead = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                ahead.append(loop.call_later(ON_ITS_WAY_S if slow else 0, target.write, data))
        for timer in ahead:
            timer.cancel()
        target.transport.abort()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_node = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            forward(reader, to_node[1], slow=False), forward(to_node[0], writer, slow=True)
        )

    async with await asyncio.start_server(between, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize("fails", [False, True])
async def test_the_owner_hears_the_answer_of_a_server_that_ends_with_it(fails: bool) -> None:
    node, asked = Node(), asyncio.Event()

    async def opened(_: Unlock) -> str:
        asked.set()
        if fails:
            raise Unavailable("the state disk did not open")
        return "control-plane-default-0"

    service = RecoveryService(DOCUMENT, disk_uuid=UUID, opened=opened)
    listening = await server.serve(
        [service],
        host="127.0.0.1",
        port=0,
        purpose="recover-server",
        attester=node.machine,
        appraisers={"": nobody_attests},
        limits=USUAL,
    )
    async with load_balancer(listening.port) as port:
        node.ports["recover"] = port
        channel = await node.connect("recover")
        call = asyncio.create_task(recover(channel))
        await asked.wait()
        await service.answered()
        await asyncio.gather(listening.drain(within_s=2), said(call, channel, fails=fails))


async def said(call: asyncio.Task[str], channel: client.AtlsChannel, *, fails: bool) -> None:
    if fails:
        with pytest.raises(ConstellationError, match="the state disk did not open"):
            await call
    else:
        assert await call == "control-plane-default-0"
    channel.close()


async def recover(channel: client.AtlsChannel) -> str:
    proof = prove_owner_channel(
        OWNER,
        exporter=channel.exporter(OWNER_CHANNEL_LABEL),
        cluster_id=CLUSTER_ID,
        purpose="recover",
    )
    request = recover_pb2.RecoverRequest(
        owner_signature=proof,
        master_key=MASTER.key.reveal(),
        master_salt=MASTER.salt.reveal(),
        time=1,
    )
    with raise_ours("node"):
        reply = await RecoveryServiceStub(channel.grpc).Recover(request, timeout=10)
    return reply.node_name


async def test_a_caller_that_stays_is_cut_off() -> None:
    node = Node()
    listening = await server.serve(
        [],
        host="127.0.0.1",
        port=0,
        purpose="recover-server",
        attester=node.machine,
        appraisers={"": nobody_attests},
        limits=USUAL,
    )
    node.ports["recover"] = listening.port
    channel = await node.connect("recover")
    begin = asyncio.get_running_loop().time()
    await listening.drain(within_s=0.2)
    assert 0.2 <= asyncio.get_running_loop().time() - begin < 5
    with pytest.raises(Unavailable):
        await node.connect("recover")
    channel.close()
