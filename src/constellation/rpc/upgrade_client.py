"""How the operator tells the upgrade agent of its own node what to do: gRPC on a unix socket."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.atls.grpc_bounds import BoundedChannel
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import upgrade_pb2 as pb
from constellation.rpc.stubs.upgrade_grpc import UpgradeAgentStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["SOCKET", "AgentState", "UpgradeClient"]

SOCKET = Path("/run/constellation/upgradeagent/agent.sock")
_WHO = "upgrade agent"
_SHORT_S, _LONG_S = 20.0, 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """What a control plane obeys and runs; `api_server` is empty once it was retired.

    `cloud_objects`: SHA-256 of the objects of the cloud's components that it wants; empty: none,
    None: it cannot say.
    """

    policy_serial: int
    kubernetes: str
    api_server: str
    snapshot: bool
    cloud_objects: str | None


class UpgradeClient:
    """The upgrade agent behind one socket; each call connects anew, the agent may have restarted.

    Every call raises Unavailable, Conflict, Rejected, Untrusted or FormatError, as the agent says.
    """

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket

    async def describe(self) -> AgentState:
        """Ask what this node obeys, runs and has."""
        async with self._stub() as stub:
            reply = await stub.Describe(pb.Target(), timeout=_SHORT_S)
        return AgentState(
            policy_serial=reply.policy_serial,
            kubernetes=reply.kubernetes_version,
            api_server=reply.api_server,
            snapshot=reply.snapshot,
            cloud_objects=reply.cloud_objects if reply.HasField("cloud_objects") else None,
        )

    async def snapshot(self, *, serial: int, kubernetes: str) -> None:
        """Take an etcd snapshot for this policy, unless there is one."""
        async with self._stub() as stub:
            await stub.Snapshot(_target(serial, kubernetes), timeout=_LONG_S)

    async def upgrade(self, *, serial: int, kubernetes: str) -> None:
        """Bring this node's static pods to the version."""
        async with self._stub() as stub:
            await stub.Upgrade(_target(serial, kubernetes), timeout=_LONG_S)

    async def core_dns(self, *, serial: int, kubernetes: str) -> None:
        """Apply the manifest of CoreDNS."""
        async with self._stub() as stub:
            await stub.CoreDns(_target(serial, kubernetes), timeout=_LONG_S)

    async def rbac(self, *, serial: int, kubernetes: str) -> None:
        """Let the version's kubeadm make its RBAC."""
        async with self._stub() as stub:
            await stub.Rbac(_target(serial, kubernetes), timeout=_LONG_S)

    async def cloud_objects(self, *, serial: int, kubernetes: str) -> None:
        """Bring the cluster to the objects of its cloud's components, as the policy wants them."""
        async with self._stub() as stub:
            await stub.CloudObjects(_target(serial, kubernetes), timeout=_LONG_S)

    async def retire(self, *, node: str) -> None:
        """End the API server of this node, which is called `node`, for good."""
        async with self._stub() as stub:
            await stub.Retire(pb.RetireRequest(node=node), timeout=_LONG_S)

    @contextlib.asynccontextmanager
    async def _stub(self) -> AsyncIterator[UpgradeAgentStub]:
        channel = BoundedChannel(path=str(self._socket))
        try:
            with raise_ours(_WHO):
                yield UpgradeAgentStub(channel)
        finally:
            channel.close()


def _target(serial: int, kubernetes: str) -> pb.Target:
    return pb.Target(policy_serial=serial, kubernetes_version=kubernetes)
