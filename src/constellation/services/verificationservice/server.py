"""Fresh evidence for anybody's nonce: port 30081 of every node, plain gRPC.

Evidence carries its own proof: it covers the caller's nonce and the digest of the cluster CA's
certificate (`atls.binding.verify_binding`), and it is public. What is guarded is the TPM's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from constellation.atls.binding import NONCE_BYTES
from constellation.atls.limits import Gate, Limits
from constellation.base import clock
from constellation.base.errors import FormatError, Unavailable
from constellation.crypto.x509 import certificate_digest
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs.verify_grpc import VerificationServiceBase
from constellation.rpc.stubs.verify_pb2 import GetEvidenceReply, GetEvidenceRequest

if TYPE_CHECKING:
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.attestation.model import Evidence

__all__ = [
    "CALLS",
    "CONNECTIONS",
    "MAX_REQUEST_BYTES",
    "PORT",
    "Verification",
    "VerifyAttester",
]

PORT = 30081
CALLS = Limits(
    handshake_s=20.0, handshakes=16, handshakes_per_address=8, connections=16, per_minute=120
)
"""Calls at the same time, per address, and per minute and address; each is one quote."""
CONNECTIONS = Limits(
    handshake_s=60.0, handshakes=128, handshakes_per_address=32, connections=128, per_minute=240
)
"""Connections; the longest life of one is `handshake_s`."""
MAX_REQUEST_BYTES = 1024
"""A request is one nonce."""


class VerifyAttester(Protocol):
    """Makes evidence for `verify` calls: the node's agent."""

    async def attest_verify(self, *, nonce: bytes, cluster_ca_digest: bytes) -> Evidence:
        """Make evidence that commits to `atls.binding.verify_binding` of these parts.

        Raises:
            Unavailable: the device did not answer.
        """
        ...


class Verification(VerificationServiceBase):
    """The VerificationService of one node; reads the CA at each call, so it may appear late."""

    def __init__(
        self, attester: VerifyAttester, *, cluster_ca: Path, node_name: str, limits: Limits
    ) -> None:
        self._attester, self._cluster_ca, self._node_name = attester, cluster_ca, node_name
        self._gate = Gate(limits)

    async def GetEvidence(  # noqa: N802 - the name in verify.proto
        self, stream: Stream[GetEvidenceRequest, GetEvidenceReply]
    ) -> None:
        """Answer with evidence over the caller's nonce (32 bytes)."""
        peer = stream.peer.addr()
        address = str(peer[0]) if peer else ""
        with raise_status():
            request = await stream.recv_message()
            if request is None:
                return
            if len(request.nonce) != NONCE_BYTES:
                raise FormatError(f"nonce: {len(request.nonce)} bytes, want {NONCE_BYTES}")
            place = self._gate.enter(address, now_s=clock.monotonic_s())
            if place is None:
                raise Unavailable("too many verify calls", hint="try again in a minute")
            try:
                reply = await self._evidence(request.nonce)
            finally:
                self._gate.left(place)
            await stream.send_message(reply)

    async def _evidence(self, nonce: bytes) -> GetEvidenceReply:
        try:
            pem = self._cluster_ca.read_bytes()
        except OSError as error:
            raise Unavailable(f"this node has no cluster CA yet: {error.strerror}") from error
        evidence = await self._attester.attest_verify(
            nonce=nonce, cluster_ca_digest=certificate_digest(pem)
        )
        return GetEvidenceReply(
            variant=str(evidence.variant),
            evidence=evidence.data,
            cluster_ca_certificate=pem,
            node_name=self._node_name,
        )
