"""The local cloud's one variant: it trusts this machine, and says so wherever it is accepted."""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.providers.catalogue import Catalogue, Offer

__all__ = ["LOCAL"]

LOCAL = Catalogue(
    provider="local",
    offers=(Offer(variant=Variant.LOCAL_VTPM, machines=(), disk_types=()),),
)
