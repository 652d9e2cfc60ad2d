"""What the join log says about a decision: admission, return, refusal, as entries. Pure.

`node_time` is what the node's own clock says, for people to compare with ours; a node that does not
say it is refused.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError, FormatError, Rejected
from constellation.kube.join_log import Entry, EvidenceSummary, Kind
from constellation.trust.node_image import image_of

if TYPE_CHECKING:
    from constellation.attestation.model import AttestationResult
    from constellation.kube.membership import Member
    from constellation.services.joinservice.admit import Admission
    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["refused", "rejoined", "renewed", "reserved"]

_MAX_REASONS = 32
_MAX_REASON_CHARS = 500


def reserved(
    admission: Admission,
    result: AttestationResult,
    *,
    policy: ClusterPolicy,
    now: int,
    node_time: int,
) -> Entry:
    """Tell that a node got its place. Raises FormatError: it did not say its time."""
    return Entry(
        kind=Kind.RESERVED,
        time=now,
        node_time=_said(node_time),
        name=admission.member.name,
        address=admission.member.address,
        instance_id=admission.member.instance_id,
        role=str(admission.member.role),
        member=dataclasses.replace(admission.member, image=image_of(result.claims, policy)),
        expires_at=admission.expires_at,
        evidence=_summary(result, policy_serial=policy.serial),
    )


def rejoined(
    member: Member, result: AttestationResult, *, policy: ClusterPolicy, now: int, node_time: int
) -> Entry:
    """Tell that a node opens its disk again. Raises FormatError: it did not say its time."""
    return _again(Kind.REJOINED, member, result, policy=policy, now=now, node_time=node_time)


def renewed(
    member: Member, result: AttestationResult, *, policy: ClusterPolicy, now: int, node_time: int
) -> Entry:
    """Tell that a running node gets new certificates. Raises FormatError: it said no time."""
    return _again(Kind.RENEWED, member, result, policy=policy, now=now, node_time=node_time)


def _said(node_time: int) -> int:
    if node_time <= 0:
        raise FormatError("request: the node did not say its time")
    return node_time


def _again(
    kind: Kind,
    member: Member,
    result: AttestationResult,
    *,
    policy: ClusterPolicy,
    now: int,
    node_time: int,
) -> Entry:
    return Entry(
        kind=kind,
        time=now,
        node_time=_said(node_time),
        name=member.name,
        address=member.address,
        instance_id=member.instance_id,
        role=str(member.role),
        evidence=_summary(result, policy_serial=policy.serial),
        image=image_of(result.claims, policy),
    )


def refused(
    error: ConstellationError, *, address: str, instance_id: str, role: str, now: int
) -> Entry:
    """Tell that an attempt was refused, and every reason; all texts are cut, they are a peer's."""
    reasons = error.findings if isinstance(error, Rejected) else (str(error),)
    return Entry(
        kind=Kind.REFUSED,
        time=now,
        address=address[:80],
        instance_id=instance_id[:80],
        role=role[:40],
        reasons=tuple(r[:_MAX_REASON_CHARS] for r in reasons[:_MAX_REASONS]),
    )


def _summary(result: AttestationResult, *, policy_serial: int) -> EvidenceSummary:
    return EvidenceSummary(
        variant=str(result.variant),
        attester_id=result.attester_id,
        claims={
            name: value.hex() if isinstance(value, bytes) else str(value)
            for name, value in result.claims.items()
        },
        policy_serial=policy_serial,
    )
