"""What both variants on GCE share: the AK's certificate, verified, and its claims and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation import chain
from constellation.attestation.google import certificate as gce
from constellation.attestation.policy import Exactly, OneOf, Rule, Unchecked
from constellation.attestation.roots import google

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.attestation.google.certificate import CertifiedKey
    from constellation.attestation.google.technology import Technology

__all__ = ["instance_rules", "verify_ak"]


def verify_ak(
    certificate: bytes, *, ak_chain: tuple[bytes, ...], roots: tuple[bytes, ...], now: datetime
) -> CertifiedKey:
    """Verify an AK's certificate (DER) by `google.certificate`.

    `ak_chain` are intermediates of the evidence; those that the library carries are tried too.

    Raises:
        FormatError: a certificate is not one.
        Untrusted: the first check that fails.
    """
    given = (*ak_chain, *google.INTERMEDIATES)
    return gce.verify(
        chain.load(certificate, what="GCE AK certificate"),
        purpose=gce.Purpose.AK,
        intermediates=tuple(chain.load(der, what="AK chain") for der in given),
        roots=tuple(chain.load(der, what="root") for der in roots),
        now=now,
    ).claims


def instance_rules(
    *, project_ids: tuple[str, ...], technologies: tuple[Technology, ...]
) -> dict[str, Rule]:
    """Give a rule for each claim of the certificate and the firmware's technology.

    Args:
        project_ids: accepted projects; none accepts nothing.
        technologies: accepted technologies.
    """
    named = Unchecked("names are given by admission, after the provider's list agreed")
    return {
        "gce.zone": named,
        "gce.project_number": Unchecked("the same project as gce.project_id"),
        "gce.project_id": OneOf(tuple(p.encode() for p in project_ids)),
        "gce.instance_id": named,
        "gce.instance_name": named,
        "gce.security_version": Unchecked("Google says 0 on all instances"),
        "gce.is_production": Exactly(1),
        "gce.technology": OneOf(tuple(int(t) for t in technologies)),
        "ak.revocation_checked": Unchecked("Google's lists do not come with the evidence"),
    }
