"""What a cluster accepts is what its owner key signed last: a policy with a growing serial.

Control planes keep the signed policy on their disks, joining nodes check it against the owner key
of their own node document. Source: design, section 6. After `verify_policy` the owner of the
cluster has signed exactly this policy; only the serial that the caller knows says if it is new.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.attestation.node_rules import (
    PlatformDemands,  # noqa: TC001 - decode reads the hints
)
from constellation.base import decode
from constellation.base.errors import FormatError, Untrusted
from constellation.crypto import signing
from constellation.crypto.derive import CLUSTER_ID_BYTES
from constellation.trust.artifact_sources import parse_sources
from constellation.trust.sealed_access import MAX_SEALED_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "AcceptedRelease",
    "ClusterPolicy",
    "PolicyRelease",
    "SignedPolicy",
    "Versions",
    "dump_policy",
    "dump_signed_policy",
    "is_rolling",
    "parse_policy",
    "parse_signed_policy",
    "sign_policy",
    "verify_policy",
]

_LABEL = "constellation-cluster-policy-v1"
_PURPOSE = "policy"
_DIGEST_BYTES = 32
_LAUNCH_BYTES = 48
_REGISTER_SIZES = ({_DIGEST_BYTES}, {48})
_MAX_POLICY_BYTES = 256 * 1024
_MOST_SLOTS = 1000
_MAX_SIGNED_BYTES = 400 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRelease:
    """One node image that may run, when, and what its registers must hold.

    The window is [not_before, not_after) in seconds since 1970, UTC; `not_after` None: no end.
    `image_digest` is the SHA-256 of the node image; `reference` has, for each register (PCR of the
    variant's bank, 32 or 48 bytes; RTMR, 48 bytes), every acceptable value; `launch` the same for
    claims about what the machine was started with (`measurement`, `mr_td` …, 48 bytes each).
    """

    name: str
    not_before: int
    not_after: int | None
    image_digest: bytes
    reference: dict[int, tuple[bytes, ...]]
    launch: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"release {self.name[:40]!r}"
        if len(self.image_digest) != _DIGEST_BYTES:
            raise FormatError(f"{where}: image digest of {len(self.image_digest)} bytes, want 32")
        if not self.reference and not self.launch:
            raise FormatError(f"{where}: no reference values")
        for register, values in self.reference.items():
            if not values or {len(v) for v in values} not in _REGISTER_SIZES:
                raise FormatError(
                    f"{where}: register {register}: want values of 32 or of 48 bytes, at least one"
                )
        for claim, values in self.launch.items():
            if not values or any(len(v) != _LAUNCH_BYTES for v in values):
                raise FormatError(
                    f"{where}: {claim[:40]}: want values of {_LAUNCH_BYTES} bytes, at least one"
                )

    def accepted_at(self, now_s: int) -> bool:
        """Say whether the window covers this time (seconds since 1970)."""
        return self.not_before <= now_s and (self.not_after is None or now_s < self.not_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What nodes get: the version of a release ("0.2.0") and of Kubernetes ("v1.36.2")."""

    release: str
    kubernetes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRelease:
    """Which release the policy follows, how fresh its metadata was, and where one may go back to.

    The four numbers are versions of TUF metadata: who holds this policy has seen them, and takes
    none that is older. `before` is what the policy before this one named; None: nothing.
    """

    version: str
    before: Versions | None
    root_version: int
    timestamp_version: int
    snapshot_version: int
    targets_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPolicy:
    """The rules that a cluster lives by; serials only grow, the first is 1.

    `trust_roots` are certificates (DER) that certify attestation keys; `artifact_lists` maps a
    Kubernetes version to the SHA-256 of its artifact list, `services_bundle` is the SHA-256 of the
    services bundle; `kubernetes_version` is the version that nodes of now get; `join_public_key` is
    DER SubjectPublicKeyInfo (P-256). `release` None: the images were made here and no release was
    published of them. `platform`: what the owner demands of chips and clouds; None where the
    variant has neither. `slots`: how many nodes of a group may live at once; a group that is not
    named has what `init` said. `provider_access`: what control planes ask the provider's API with
    from now on, sealed for them (`trust.sealed_access`); empty: what they have. `artifact_sources`:
    where nodes may fetch what the lists name, in turn (`trust.artifact_sources`).
    `cloud_integration`: whether the cloud's own components that a list names run in the cluster.
    For the five the owner alone speaks.
    """

    cluster_id: bytes
    serial: int
    releases: tuple[AcceptedRelease, ...]
    trust_roots: tuple[bytes, ...]
    artifact_lists: dict[str, bytes]
    services_bundle: bytes
    kubernetes_version: str
    join_public_key: bytes
    release: PolicyRelease | None = None
    platform: PlatformDemands | None = None
    slots: dict[str, int] = field(default_factory=dict)
    provider_access: bytes = b""
    artifact_sources: tuple[str, ...] = ()
    cloud_integration: bool = False

    def __post_init__(self) -> None:
        if len(self.cluster_id) != CLUSTER_ID_BYTES:
            raise FormatError(f"cluster policy: clusterID of {len(self.cluster_id)} bytes, want 32")
        if self.serial < 1:
            raise FormatError(f"cluster policy: serial {self.serial}, want at least 1")
        if not self.releases or not self.trust_roots or not self.join_public_key:
            raise FormatError("cluster policy: releases, trust roots and join key are all needed")
        if self.kubernetes_version not in self.artifact_lists:
            raise FormatError(
                f"cluster policy: no artifact list for Kubernetes {self.kubernetes_version[:40]}"
            )
        digests = (*self.artifact_lists.values(), self.services_bundle)
        if any(len(d) != _DIGEST_BYTES for d in digests):
            raise FormatError("cluster policy: every digest has 32 bytes")
        if any(not 0 <= count <= _MOST_SLOTS for count in self.slots.values()):
            raise FormatError(f"cluster policy: a group has 0 to {_MOST_SLOTS} slots")
        if len(self.provider_access) > MAX_SEALED_BYTES:
            raise FormatError(
                f"cluster policy: provider access of {len(self.provider_access)} bytes, at most "
                f"{MAX_SEALED_BYTES}"
            )
        parse_sources(self.artifact_sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPolicy:
    """A policy's bytes (canonical JSON) and the owner key's signature over them."""

    policy: bytes
    signature: bytes


def dump_policy(policy: ClusterPolicy) -> bytes:
    """Write the bytes that the owner key signs: canonical JSON."""
    return decode.dump(policy)


def is_rolling(policy: ClusterPolicy) -> bool:
    """Say whether a policy is one of a roll-out: something in it is to end."""
    return len(policy.artifact_lists) > 1 or any(e.not_after is not None for e in policy.releases)


def parse_policy(data: bytes) -> ClusterPolicy:
    """Read a policy, not yet verified.

    Raises:
        FormatError: not a cluster policy, larger than 256 KiB, or not in canonical form.
    """
    policy = decode.load(ClusterPolicy, data, what="cluster policy", max_bytes=_MAX_POLICY_BYTES)
    if dump_policy(policy) != data:
        said = json.loads(data).keys()
        if silent := [f.name for f in dataclasses.fields(policy) if f.name not in said]:
            raise FormatError(
                f"cluster policy: says nothing of {', '.join(silent)}: an earlier build than this "
                "one made it"
            )
        raise FormatError("cluster policy: not in canonical form")
    return policy


def dump_signed_policy(signed: SignedPolicy) -> bytes:
    """Write policy and signature for a file (`policy.json` on control planes)."""
    return decode.dump(signed)


def parse_signed_policy(data: bytes) -> SignedPolicy:
    """Read what `dump_signed_policy` wrote; nothing is verified by that.

    Raises:
        FormatError: something else, or larger than 400 KiB.
    """
    return decode.load(SignedPolicy, data, what="signed policy", max_bytes=_MAX_SIGNED_BYTES)


def sign_policy(policy: ClusterPolicy, owner_key: ec.EllipticCurvePrivateKey) -> SignedPolicy:
    """Sign a policy with the owner key of its cluster."""
    data = dump_policy(policy)
    signature = signing.sign(
        owner_key, data, label=_LABEL, cluster_id=policy.cluster_id, purpose=_PURPOSE
    )
    return SignedPolicy(policy=data, signature=signature)


def verify_policy(
    signed: SignedPolicy, *, owner_public_key: bytes, cluster_id: bytes, minimum_serial: int
) -> ClusterPolicy:
    """Check signature, cluster and serial, then give the policy.

    Args:
        signed: as a peer or a disk gave it.
        owner_public_key: DER, from the checker's own node document.
        cluster_id: 32 bytes, from the same place.
        minimum_serial: the largest serial that the checker has seen; 1 where it has seen none.

    Raises:
        Untrusted: the owner key of this cluster did not sign it, or the serial is below the minimum
            (an old policy shown again).
        FormatError: signed, but not a cluster policy.
    """
    signing.verify(
        owner_public_key,
        signed.signature,
        signed.policy,
        label=_LABEL,
        cluster_id=cluster_id,
        purpose=_PURPOSE,
    )
    policy = parse_policy(signed.policy)
    if policy.cluster_id != cluster_id:
        raise Untrusted(
            f"cluster policy: found clusterID {policy.cluster_id.hex()}, "
            f"expected {cluster_id.hex()}"
        )
    if policy.serial < minimum_serial:
        raise Untrusted(
            f"cluster policy: found serial {policy.serial}, expected at least {minimum_serial}"
        )
    return policy
