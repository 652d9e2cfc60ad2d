"""How a program of a node asks its attestation agent for evidence: gRPC on a unix socket.

The socket fixes the purposes that may be asked for; the agent builds every binding itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from constellation.atls.grpc_bounds import BoundedChannel
from constellation.attestation.model import Evidence, Variant
from constellation.base.errors import FormatError
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import agent_pb2
from constellation.rpc.stubs.agent_grpc import AttestationAgentStub

__all__ = ["AGENT_FOLDER", "AgentClient", "agent_socket"]

AGENT_FOLDER = Path("/run/constellation/agent")
"""A folder for each door, so that a pod is given one of them and sees no other."""

_DEADLINE_S = 20.0
_WHO = "attestation agent"


def agent_socket(door: str, *, folder: Path = AGENT_FOLDER) -> Path:
    """Give the socket of a door (`services.agent.allowed`)."""
    return folder / door / "agent.sock"


class AgentClient:
    """The attestation agent behind one socket; an `atls` ChannelAttester. Make with `connect`."""

    def __init__(self, channel: BoundedChannel, *, variant: Variant, attester_id: bytes) -> None:
        self._channel = channel
        self._stub = AttestationAgentStub(channel)
        self.variant = variant
        self.attester_id = attester_id

    @classmethod
    async def connect(cls, socket: Path) -> Self:
        """Connect and ask the agent who it is.

        Raises:
            Unavailable: nothing answers at `socket`.
            FormatError: a variant that this build does not know.
        """
        channel = BoundedChannel(path=str(socket))
        try:
            with raise_ours(_WHO):
                reply = await AttestationAgentStub(channel).Describe(
                    agent_pb2.DescribeRequest(), timeout=_DEADLINE_S
                )
            return cls(channel, variant=_variant(reply.variant), attester_id=reply.attester_id)
        except BaseException:
            channel.close()
            raise

    async def given_to_cluster(self) -> bool:
        """Say whether PCR 15 was extended since power-on."""
        with raise_ours(_WHO):
            reply = await self._stub.Describe(agent_pb2.DescribeRequest(), timeout=_DEADLINE_S)
        return reply.given_to_cluster

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        """Get evidence for one aTLS channel (`exporter`, `spki_digest`, `peer_nonce`: 32 bytes).

        Raises:
            Unavailable: the agent or its device did not answer.
            Rejected: this socket does not give evidence for `purpose`.
        """
        request = agent_pb2.AttestChannelRequest(
            purpose=purpose, exporter=exporter, spki_digest=spki_digest, peer_nonce=peer_nonce
        )
        with raise_ours(_WHO):
            reply = await self._stub.AttestChannel(request, timeout=_DEADLINE_S)
        return Evidence(variant=_variant(reply.variant), data=reply.evidence)

    async def attest_verify(self, *, nonces_root: bytes, cluster_ca_digest: bytes) -> Evidence:
        """Get evidence for `verify` calls (32 bytes each; `atls.nonce_batch`).

        Raises:
            Unavailable: the agent or its device did not answer.
        """
        request = agent_pb2.AttestVerifyRequest(
            nonces_root=nonces_root, cluster_ca_digest=cluster_ca_digest
        )
        with raise_ours(_WHO):
            reply = await self._stub.AttestVerify(request, timeout=_DEADLINE_S)
        return Evidence(variant=_variant(reply.variant), data=reply.evidence)

    async def give_to_cluster(self, cluster_id: bytes) -> None:
        """Extend PCR 15 with this cluster (32 bytes); from then on the node is its.

        Raises:
            Conflict: it was extended since power-on.
        """
        with raise_ours(_WHO):
            await self._stub.GiveToCluster(
                agent_pb2.GiveToClusterRequest(cluster_id=cluster_id), timeout=_DEADLINE_S
            )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _variant(text: str) -> Variant:
    try:
        return Variant(text)
    except ValueError:
        raise FormatError(f"{_WHO}: variant {text[:40]!r}") from None
