"""What Azure has: machine sizes and disk types for each variant.

Source: Azure, "DC family" and "EC family" of confidential VM sizes; "Trusted launch".
"""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.providers.catalogue import Catalogue, Machine, Offer

__all__ = ["AZURE"]

_SIZES = (4, 8, 16, 32, 48, 64, 96)
_DISKS = ("Premium_LRS", "StandardSSD_LRS", "Standard_LRS")


def _machines(pattern: str, *, gib_for_each: int) -> tuple[Machine, ...]:
    return tuple(
        Machine(name=pattern.format(n), vcpus=n, memory_gib=n * gib_for_each) for n in _SIZES
    )


AZURE = Catalogue(
    provider="azure",
    offers=(
        Offer(
            variant=Variant.AZURE_SEV_SNP,
            machines=(
                *_machines("Standard_DC{}as_v5", gib_for_each=4),
                *_machines("Standard_EC{}as_v5", gib_for_each=8),
            ),
            disk_types=_DISKS,
        ),
        Offer(
            variant=Variant.AZURE_TDX,
            machines=(
                *_machines("Standard_DC{}es_v5", gib_for_each=4),
                *_machines("Standard_EC{}es_v5", gib_for_each=8),
            ),
            disk_types=_DISKS,
        ),
        Offer(
            variant=Variant.AZURE_TRUSTEDLAUNCH,
            machines=_machines("Standard_D{}as_v5", gib_for_each=4),
            disk_types=_DISKS,
            weak="Azure's hypervisor sees the memory of the nodes and vouches for their boot",
        ),
    ),
)
