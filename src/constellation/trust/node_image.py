"""Which accepted node image does a node's evidence show? The one whose values all match. Pure.

Each rule of an appraisal takes what any accepted image has; this says which one image has all of it
(`appraisal` demands that one does). The digest is the image's name in policies, at providers and in
the roll-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy

__all__ = ["image_of", "shows_image", "wanted_image"]

_REGISTERS = ("pcr", "rtmr")


def image_of(claims: Mapping[str, object], policy: ClusterPolicy) -> bytes:
    """Give the digest (32 bytes) of the image that these claims are of; empty: of none."""
    return next((r.image_digest for r in policy.releases if shows_image(claims, r)), b"")


def wanted_image(policy: ClusterPolicy) -> bytes:
    """Give the image that nodes of now get: the first that is accepted without an end.

    Empty where every image has an end: then nothing says which of them to roll out.
    """
    return next((r.image_digest for r in policy.releases if r.not_after is None), b"")


def shows_image(claims: Mapping[str, object], release: AcceptedRelease) -> bool:
    """Say whether every register, and every launch claim that is shown, is one of this release."""
    return all(
        any(claims.get(f"{kind}{number}") in values for kind in _REGISTERS)
        for number, values in release.reference.items()
    ) and all(
        claims[claim] in values for claim, values in release.launch.items() if claim in claims
    )
