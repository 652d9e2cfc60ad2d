"""Which accepted node image does a node's evidence show? The one whose values all match. Pure.

Evidence that was appraised matches the union of all accepted images; this says which of them it
is. The digest is the image's name in policies, at providers and in the roll-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy

__all__ = ["image_of", "wanted_image"]

_REGISTERS = ("pcr", "rtmr")


def image_of(claims: Mapping[str, object], policy: ClusterPolicy) -> bytes:
    """Give the digest (32 bytes) of the image that these claims are of; empty: of none."""
    return next((r.image_digest for r in policy.releases if _shows(claims, r)), b"")


def wanted_image(policy: ClusterPolicy) -> bytes:
    """Give the image that nodes of now get: the first that is accepted without an end.

    Empty where every image has an end: then nothing says which of them to roll out.
    """
    return next((r.image_digest for r in policy.releases if r.not_after is None), b"")


def _shows(claims: Mapping[str, object], release: AcceptedRelease) -> bool:
    return all(
        any(claims.get(f"{kind}{number}") in values for kind in _REGISTERS)
        for number, values in release.reference.items()
    )
