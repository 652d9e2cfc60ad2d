"""Answers the operator of this node on a unix socket in a folder of its own (`rpc.upgrade_client`).

Only root may connect. A run goes on when its caller hangs up: who calls again waits for it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from constellation.atls.grpc_bounds import LocalServer
from constellation.base.errors import Conflict
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import upgrade_pb2 as pb
from constellation.rpc.stubs.upgrade_grpc import UpgradeAgentBase
from constellation.services.upgradeagent.judge import Target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.services.upgradeagent.agent import Agent

__all__ = ["UpgradeService", "serve"]

_MAX_REQUEST_BYTES = 4096


class UpgradeService(UpgradeAgentBase):
    """The agent behind its socket; method names are those of upgrade.proto."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._running: set[asyncio.Task[None]] = set()

    async def Describe(self, stream: Stream[pb.Target, pb.Description]) -> None:  # noqa: N802
        """Say what this node obeys, runs and has."""
        request = await stream.recv_message()
        if request is None:
            return
        with raise_status():
            policy, api_server = self._agent.describe()
            snapshot = self._agent.has_snapshot(policy.serial)
            components = await asyncio.to_thread(self._agent.components)
        await stream.send_message(
            pb.Description(
                policy_serial=policy.serial,
                kubernetes_version=policy.kubernetes_version,
                api_server=api_server,
                snapshot=snapshot,
                cloud_objects=components,
            )
        )

    async def Snapshot(self, stream: Stream[pb.Target, pb.Done]) -> None:  # noqa: N802
        """Take an etcd snapshot."""
        await self._run(stream, self._agent.snapshot)

    async def Upgrade(self, stream: Stream[pb.Target, pb.Done]) -> None:  # noqa: N802
        """Bring the static pods to a version."""
        await self._run(stream, self._agent.upgrade)

    async def CoreDns(self, stream: Stream[pb.Target, pb.Done]) -> None:  # noqa: N802
        """Apply CoreDNS' manifest."""
        await self._run(stream, self._agent.core_dns)

    async def Rbac(self, stream: Stream[pb.Target, pb.Done]) -> None:  # noqa: N802
        """Apply kubeadm's RBAC."""
        await self._run(stream, self._agent.rbac)

    async def CloudObjects(self, stream: Stream[pb.Target, pb.Done]) -> None:  # noqa: N802
        """Bring the cluster to the objects of its cloud's components."""
        await self._run(stream, self._agent.cloud_objects)

    async def Retire(self, stream: Stream[pb.RetireRequest, pb.Done]) -> None:  # noqa: N802
        """End this node's API server for good."""
        request = await stream.recv_message()
        if request is None:
            return
        with raise_status():
            if request.node != self._agent.node:
                raise Conflict(f"this is {self._agent.node}, the order is for another node")
            await self._to_the_end(self._agent.retire())
        await stream.send_message(pb.Done())

    async def _run(
        self,
        stream: Stream[pb.Target, pb.Done],
        work: Callable[[Target], Coroutine[Any, Any, None]],
    ) -> None:
        request = await stream.recv_message()
        if request is None:
            return
        with raise_status():
            await self._to_the_end(
                work(
                    Target(
                        policy_serial=request.policy_serial, kubernetes=request.kubernetes_version
                    )
                )
            )
        await stream.send_message(pb.Done())

    def _to_the_end(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return asyncio.shield(task)


async def serve(agent: Agent, path: Path) -> asyncio.Server:
    """Open the socket (0600 in a folder 0700); close the server to end."""
    service = LocalServer([UpgradeService(agent)], max_message_bytes=_MAX_REQUEST_BYTES)
    factory = service._protocol_factory  # noqa: SLF001 - grpclib's one hook
    listening = await asyncio.to_thread(_bind, path)
    return await asyncio.get_running_loop().create_unix_server(factory, sock=listening)


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    return listening
