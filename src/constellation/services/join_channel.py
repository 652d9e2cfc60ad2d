"""A channel to a JoinService that was judged: what disk mapper and bootstrapper join through.

The handshake keeps the server's evidence, Introduce brings the policy, and only after
`trust.judge_join_server` accepted both does the caller get a stub to ask with.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.atls import client
from constellation.attestation.model import AttestationResult
from constellation.base import clock
from constellation.base.errors import Unavailable
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import JoinServiceStub
from constellation.trust.channel_proof import JOIN_CHANNEL_LABEL
from constellation.trust.cluster_policy import SignedPolicy
from constellation.trust.judge_join_server import JudgedServer, Shown, judge_join_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.atls.client import ChannelAttester
    from constellation.attestation.model import Binding, Evidence
    from constellation.trust.node_document import NodeDocument

__all__ = ["PORT", "JoinServer", "judged_channel"]

PORT = 30090
_SERVER_PURPOSE = "join-server"
_HANDSHAKE_DEADLINE_S = 10.0
_INTRODUCE_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinServer:
    """A JoinService of this node's cluster, ready to be asked; `signed_policy` as it showed it."""

    stub: JoinServiceStub
    judged: JudgedServer
    signed_policy: SignedPolicy


class _Keep:
    """Keeps evidence for later; its result allows nothing but the Introduce call."""

    def __init__(self) -> None:
        self.shown: tuple[Evidence, Binding] | None = None

    def __call__(self, evidence: Evidence, binding: Binding) -> AttestationResult:
        self.shown = (evidence, binding)
        return AttestationResult(
            variant=evidence.variant,
            attester_id=b"",
            claims={},
            unchecked=("everything: judged after Introduce, under the policy that it brings",),
            warnings=(),
        )


@contextlib.asynccontextmanager
async def judged_channel(
    address: str,
    *,
    purpose: str,
    attester: ChannelAttester,
    document: NodeDocument,
    minimum_serial: int,
) -> AsyncIterator[JoinServer]:
    """Connect to the JoinService at `address`, both sides attesting, and judge it.

    Args:
        address: of a control plane, as the metadata API claims.
        purpose: `join-client` or `rejoin-client`.
        attester: this node's agent.
        document: this node's own, measured.
        minimum_serial: the largest policy serial that this node has seen, 1 if none.

    Raises:
        Unavailable: nothing answers.
        Untrusted, Rejected, FormatError: see `judge_join_server`.
    """
    keep = _Keep()
    with raise_ours(f"JoinService {address}"):
        channel = await client.connect(
            address,
            PORT,
            purpose=purpose,
            server_purpose=_SERVER_PURPOSE,
            attester=attester,
            appraise=keep,
            deadline_s=_HANDSHAKE_DEADLINE_S,
        )
    try:
        stub = JoinServiceStub(channel.grpc)
        with raise_ours(f"JoinService {address}"):
            reply = await stub.Introduce(join_pb2.IntroduceRequest(), timeout=_INTRODUCE_DEADLINE_S)
        if keep.shown is None:
            raise Unavailable(f"JoinService {address} showed no evidence")
        evidence, binding = keep.shown
        signed = SignedPolicy(policy=reply.policy, signature=reply.policy_signature)
        shown = Shown(
            evidence=evidence,
            binding=binding,
            policy=signed,
            channel_signature=reply.channel_signature,
            exporter=channel.exporter(JOIN_CHANNEL_LABEL),
        )
        judged = judge_join_server(
            shown, document=document, minimum_serial=minimum_serial, now=clock.now_for_windows()
        )
        yield JoinServer(stub=stub, judged=judged, signed_policy=signed)
    finally:
        channel.close()
