"""The VerificationService as gRPC: port 30081 of every node, in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.rpc.errors import raise_status
from constellation.rpc.stubs.verify_grpc import VerificationServiceBase
from constellation.rpc.stubs.verify_pb2 import Batch, GetEvidenceReply, GetEvidenceRequest

if TYPE_CHECKING:
    from grpclib.server import Stream

    from constellation.services.verificationservice.answers import Answers

__all__ = ["MAX_REQUEST_BYTES", "PORT", "Verification"]

PORT = 30081
MAX_REQUEST_BYTES = 1024
"""A request is one nonce."""


class Verification(VerificationServiceBase):
    """The protocol of verify.proto on one node."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

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
            answer = await self._answers.answer(request.nonce, address=address)
            place = answer.place
            await stream.send_message(
                GetEvidenceReply(
                    variant=str(answer.evidence.variant),
                    evidence=answer.evidence.data,
                    cluster_ca_certificate=answer.cluster_ca,
                    node_name=answer.node_name,
                    batch=Batch(index=place.index, size=place.size, path=place.path),
                )
            )
