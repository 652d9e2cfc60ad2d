"""The owner hands in a new cluster policy, or asks who obeys which: port 30091, aTLS.

The caller does not attest: it proves the owner key over the channel. The answer carries the join
key's proof, without which the owner believes no report. Source: design, section 6; policy.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls import server
from constellation.base.errors import Unavailable
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import policy_pb2
from constellation.rpc.stubs.policy_grpc import PolicyServiceBase
from constellation.trust.channel_proof import (
    JOIN_CHANNEL_LABEL,
    OWNER_CHANNEL_LABEL,
    prove_join_channel,
    verify_owner_channel,
)
from constellation.trust.cluster_policy import SignedPolicy
from constellation.trust.policy_acceptance import OfferedPolicy

if TYPE_CHECKING:
    from typing import Any

    from grpclib.server import Stream

    from constellation.services.joinservice.policy_travel import PolicyTravel
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["POLICY_PORT", "POLICY_SERVER", "PolicyHandlers"]

POLICY_PORT = 30091
POLICY_SERVER = "policy-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyHandlers(PolicyServiceBase):
    """The PolicyService of one control plane."""

    files: NodeFiles
    kept: KeptPolicy
    travel: PolicyTravel

    async def HandOver(  # noqa: N802 - the name in policy.proto
        self, stream: Stream[policy_pb2.HandOverRequest, policy_pb2.PolicyReport]
    ) -> None:
        """Judge policy and release, keep the policy here, pass it on, report."""
        with raise_status():
            request = await self._owner_s(stream)
            signed = SignedPolicy(policy=request.policy, signature=request.policy_signature)
            self.travel.take(OfferedPolicy(signed=signed, chain=request.release_chain))
            await stream.send_message(await self._report(stream))

    async def Report(  # noqa: N802 - the name in policy.proto
        self, stream: Stream[policy_pb2.ReportRequest, policy_pb2.PolicyReport]
    ) -> None:
        """Report."""
        with raise_status():
            await self._owner_s(stream)
            await stream.send_message(await self._report(stream))

    async def _owner_s(self, stream: Stream[Any, Any]) -> Any:
        request = await stream.recv_message()
        if request is None:
            raise Unavailable("the caller ended the call before its request")
        verify_owner_channel(
            self.kept.document.owner_public_key,
            request.owner_signature,
            exporter=server.peer_of(stream).exporter(OWNER_CHANNEL_LABEL),
            cluster_id=self.kept.document.cluster_id,
            purpose="policy",
        )
        server.owner_proven(stream)
        return request

    async def _report(self, stream: Stream[Any, Any]) -> policy_pb2.PolicyReport:
        proof = prove_join_channel(
            self.files.join_key(),
            exporter=server.peer_of(stream).exporter(JOIN_CHANNEL_LABEL),
            cluster_id=self.kept.document.cluster_id,
        )
        return policy_pb2.PolicyReport(
            channel_signature=proof, control_planes=await self.travel.exchange()
        )
