"""How long one attested connection takes: connect, both sides attest, first gRPC call.

    PYTHONPATH=src:. python bench/attested_connect.py [--rounds N] [--in-memory]

Server and client share one process and one event loop, on loopback. Every quote comes from a
software TPM (variant local-vtpm); with `--in-memory` evidence is signed in the process instead.
`cpu_ms` is the process' own time without the TPMs': on a busy machine it is the steadier figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.atls import client, server
from constellation.atls.limits import Limits
from constellation.attestation.policy import Exactly
from constellation.rpc.stubs.key_grpc import KeyServiceBase, KeyServiceStub
from constellation.rpc.stubs.key_pb2 import GetDataKeyReply, GetDataKeyRequest
from tests.fakes.local_nodes import appraiser, local_node
from tests.fakes.machines import Maker
from tests.fakes.tpm import LocalCloudCa

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpclib.server import Stream

GOAL_P50_MS = 12.0
_WARM_UP = 10
_MANY = 10**9
_UNLIMITED = Limits(
    handshake_s=10,
    handshakes=_MANY,
    handshakes_per_address=_MANY,
    connections=_MANY,
    per_minute=_MANY,
)
_Nodes = tuple[client.ChannelAttester, client.ChannelAttester, client.Appraise]


class _Echo(KeyServiceBase):
    async def GetDataKey(  # noqa: N802 - the name in key.proto
        self, stream: Stream[GetDataKeyRequest, GetDataKeyReply]
    ) -> None:
        await stream.recv_message()
        await stream.send_message(GetDataKeyReply(key=b"x" * 64))


@asynccontextmanager
async def _nodes(*, in_memory: bool) -> AsyncIterator[_Nodes]:
    if in_memory:
        maker = Maker()
        appraise = maker.appraiser({"pcr4": Exactly(bytes(32))})
        yield maker.machine(pcr4=bytes(32)), maker.machine(pcr4=bytes(32)), appraise
        return
    ca = LocalCloudCa()
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        async with (
            local_node(Path(folder, "a"), ca=ca) as one,
            local_node(Path(folder, "b"), ca=ca) as other,
        ):
            yield one, other, appraiser(ca)


async def _measure(rounds: int, *, in_memory: bool) -> list[tuple[float, float]]:
    times = []
    async with _nodes(in_memory=in_memory) as (node, peer, appraise):
        listening = await server.serve(
            [_Echo()],
            host="127.0.0.1",
            port=0,
            purpose="join-server",
            attester=node,
            appraisers={"join-client": appraise},
            limits=_UNLIMITED,
        )
        for _ in range(rounds + _WARM_UP):
            start, cpu = time.perf_counter(), time.process_time()
            channel = await client.connect(
                "127.0.0.1",
                listening.port,
                purpose="join-client",
                server_purpose="join-server",
                attester=peer,
                appraise=appraise,
                deadline_s=10,
            )
            await KeyServiceStub(channel.grpc).GetDataKey(GetDataKeyRequest(id="x"))
            times.append((time.perf_counter() - start, time.process_time() - cpu))
            channel.close()
        listening.close()
        await listening.wait_closed()
    return times[_WARM_UP:]


def main() -> int:
    """Print p50 and p95 in milliseconds as one JSON object; exit code 1 above the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--in-memory", action="store_true")
    options = parser.parse_args()
    times = asyncio.run(_measure(options.rounds, in_memory=options.in_memory))
    cuts = statistics.quantiles([wall * 1000 for wall, _ in times], n=20)
    result = {
        "what": "connect + mutual attestation + first call",
        "evidence": "signed in memory" if options.in_memory else "local-vtpm, swtpm",
        "rounds": options.rounds,
        "p50_ms": round(cuts[9], 2),
        "p95_ms": round(cuts[18], 2),
        "cpu_ms": round(statistics.median(cpu * 1000 for _, cpu in times), 2),
        "goal_p50_ms": GOAL_P50_MS,
        "load_1m": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))
    return int(cuts[9] > GOAL_P50_MS)


if __name__ == "__main__":
    sys.exit(main())
