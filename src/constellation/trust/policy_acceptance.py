"""A control plane says that it has judged a policy and its release, and when: by the join key.

Expiry and freshness of a release count when a policy is accepted. A JoinService that was off may
meet that policy when its chain has expired, or after several others: what the join key says then
stands for the clock and for the policies in between, and for nothing else. Source: design, section
3 ("Releases"); ADR 70.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from constellation.trust.cluster_policy import SignedPolicy

__all__ = [
    "Acceptance",
    "OfferedPolicy",
    "SignedAcceptance",
    "of_offer",
    "sign_acceptance",
    "verify_acceptance",
]

_LABEL = "constellation-policy-acceptance-v1"
_PURPOSE = "accepted"
_MAX_BYTES = 4096
_LATEST = 1 << 33
"""Seconds since 1970; the year 2242."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What was accepted: SHA-256 (32 bytes) of the policy's bytes and of its release chain's.

    `fresh_at`: when the chain was judged and had not expired, in seconds since 1970. A policy that
    follows no release has the digest of no bytes, and 0.
    """

    policy_digest: bytes
    chain_digest: bytes
    fresh_at: int

    def __post_init__(self) -> None:
        if not 0 <= self.fresh_at < _LATEST:
            raise FormatError(f"policy's acceptance: time {self.fresh_at} is none of our days")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAcceptance:
    """An acceptance's bytes (canonical JSON) and the join key's signature over them."""

    acceptance: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedPolicy:
    """A policy with all that its judge needs; as owner and JoinServices hand it on.

    `chain` is what `release_chain.dump_chain` wrote, empty where no release comes with it;
    `accepted` None: nobody says to have judged it.
    """

    signed: SignedPolicy
    chain: bytes = b""
    accepted: SignedAcceptance | None = None


def of_offer(offered: OfferedPolicy, *, fresh_at: int) -> Acceptance:
    """Give what there is to sign for a policy that was judged."""
    return Acceptance(
        policy_digest=hashlib.sha256(offered.signed.policy).digest(),
        chain_digest=hashlib.sha256(offered.chain).digest(),
        fresh_at=fresh_at,
    )


def sign_acceptance(
    acceptance: Acceptance, join_key: ec.EllipticCurvePrivateKey, *, cluster_id: bytes
) -> SignedAcceptance:
    """Sign with the join key, which only control planes have."""
    data = decode.dump(acceptance)
    signature = signing.sign(join_key, data, label=_LABEL, cluster_id=cluster_id, purpose=_PURPOSE)
    return SignedAcceptance(acceptance=data, signature=signature)


def verify_acceptance(
    offered: OfferedPolicy, *, join_public_key: bytes, cluster_id: bytes
) -> Acceptance | None:
    """Check that a control plane of this cluster accepted this very policy with this very chain.

    None: nobody says so.

    Raises:
        Untrusted: the join key did not sign it, or it speaks of another policy or chain.
        FormatError: signed, but no acceptance.
    """
    said = offered.accepted
    if said is None:
        return None
    signing.verify(
        join_public_key,
        said.signature,
        said.acceptance,
        label=_LABEL,
        cluster_id=cluster_id,
        purpose=_PURPOSE,
    )
    acceptance = decode.load(
        Acceptance, said.acceptance, what="policy's acceptance", max_bytes=_MAX_BYTES
    )
    if acceptance != of_offer(offered, fresh_at=acceptance.fresh_at):
        raise Untrusted("policy's acceptance: it speaks of another policy or release chain")
    return acceptance
