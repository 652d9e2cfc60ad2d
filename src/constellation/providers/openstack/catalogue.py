"""What an OpenStack cloud has: its flavours and volume types are its own, so none are listed.

STACKIT's defaults come first; another cloud's names are written into the configuration.
"""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.providers.catalogue import Catalogue, Machine, Offer

__all__ = ["OPENSTACK"]

OPENSTACK = Catalogue(
    provider="openstack",
    offers=(
        Offer(
            variant=Variant.QEMU_VTPM,
            machines=(Machine(name="m1a.4cd", vcpus=4, memory_gib=16),),
            disk_types=("storage_premium_perf6",),
            weak="nothing but the data centre's word says what a node booted: for development",
        ),
    ),
    open_machines=True,
)
