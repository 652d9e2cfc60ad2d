"""What Google Cloud has: machine types and disk types for each variant.

Source: Compute Engine, "Supported configurations" of Confidential VM (C3 for TDX, N2D for SEV-SNP
and SEV).
"""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.providers.catalogue import Catalogue, Machine, Offer

__all__ = ["GCP"]

_N2D = tuple(
    Machine(name=f"n2d-standard-{n}", vcpus=n, memory_gib=n * 4) for n in (4, 8, 16, 32, 48, 64)
)
_C3 = tuple(Machine(name=f"c3-standard-{n}", vcpus=n, memory_gib=n * 4) for n in (4, 8, 22, 44, 88))

GCP = Catalogue(
    provider="gcp",
    offers=(
        Offer(variant=Variant.GCP_TDX, machines=_C3, disk_types=("pd-balanced", "pd-ssd")),
        Offer(
            variant=Variant.GCP_SEV_SNP,
            machines=_N2D,
            disk_types=("pd-ssd", "pd-balanced", "pd-standard"),
            weak="Google's hypervisor keeps the registers that say what a node booted",
        ),
        Offer(
            variant=Variant.GCP_SEV_ES,
            machines=_N2D,
            disk_types=("pd-ssd", "pd-balanced", "pd-standard"),
            weak="Google's hypervisor vouches for registers and machine, no chip does",
        ),
    ),
)
