"""Which variants hosts of one's own can have; their machines and disks are what they are."""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.providers.catalogue import Catalogue, Offer

__all__ = ["BAREMETAL"]

BAREMETAL = Catalogue(
    provider="baremetal",
    offers=(
        Offer(variant=Variant.QEMU_TDX, machines=(), disk_types=()),
        Offer(variant=Variant.QEMU_SEV_SNP, machines=(), disk_types=()),
        Offer(
            variant=Variant.QEMU_VTPM,
            machines=(),
            disk_types=(),
            weak="whoever runs the host sees everything: for development",
        ),
    ),
)
