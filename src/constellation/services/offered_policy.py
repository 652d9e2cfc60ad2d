"""A policy with chain and acceptance, as the messages of `join.proto` carry it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.trust.cluster_policy import SignedPolicy
from constellation.trust.policy_acceptance import OfferedPolicy, SignedAcceptance

if TYPE_CHECKING:
    from constellation.rpc.stubs import join_pb2

__all__ = ["read_offer", "write_offer"]


def read_offer(message: join_pb2.PolicyStand | join_pb2.ControlPlaneTicket) -> OfferedPolicy:
    """Give what a message offers; nothing is judged by that."""
    accepted = None
    if message.acceptance or message.acceptance_signature:
        accepted = SignedAcceptance(
            acceptance=message.acceptance, signature=message.acceptance_signature
        )
    return OfferedPolicy(
        signed=SignedPolicy(policy=message.policy, signature=message.policy_signature),
        chain=message.release_chain,
        accepted=accepted,
    )


def write_offer(
    message: join_pb2.PolicyStand | join_pb2.ControlPlaneTicket, offered: OfferedPolicy
) -> None:
    """Put an offer into a message."""
    message.policy = offered.signed.policy
    message.policy_signature = offered.signed.signature
    message.release_chain = offered.chain
    if offered.accepted is not None:
        message.acceptance = offered.accepted.acceptance
        message.acceptance_signature = offered.accepted.signature
