"""What Amazon EC2 has: machine types and volume types for each variant.

Sources: Amazon EC2 User Guide, "AMD SEV-SNP for Amazon EC2 instances" (M6a, C6a and R6a, in US East
(Ohio) and Europe (Ireland)) and "NitroTPM for Amazon EC2 instances"; Amazon EBS volume types.
"""

from __future__ import annotations

from constellation.attestation.model import Variant
from constellation.providers.catalogue import Catalogue, Machine, Offer

__all__ = ["AWS"]

_GIB_BY_FAMILY = {"m": 4, "c": 2, "r": 8}
_SIZES = {"xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "12xlarge": 48, "16xlarge": 64}


def _machines(family: str, *, up_to: str) -> tuple[Machine, ...]:
    """Give a family's sizes; memory for each virtual CPU goes by the family's letter."""
    names = tuple(_SIZES)
    return tuple(
        Machine(
            name=f"{family}.{size}",
            vcpus=_SIZES[size],
            memory_gib=_SIZES[size] * _GIB_BY_FAMILY[family[0]],
        )
        for size in names[: names.index(up_to) + 1]
    )


_VOLUMES = ("gp3", "gp2", "io1", "io2")

AWS = Catalogue(
    provider="aws",
    offers=(
        Offer(
            variant=Variant.AWS_SEV_SNP,
            machines=(
                *_machines("m6a", up_to="8xlarge"),
                *_machines("c6a", up_to="16xlarge"),
                *_machines("r6a", up_to="4xlarge"),
            ),
            disk_types=_VOLUMES,
            regions=("us-east-2", "eu-west-1"),
        ),
        Offer(
            variant=Variant.AWS_NITRO_TPM,
            machines=tuple(
                machine
                for family in ("m6a", "m6i", "m7a", "m7i", "c6a", "c6i", "r6a", "r6i")
                for machine in _machines(family, up_to="8xlarge")
            ),
            disk_types=_VOLUMES,
            weak="AWS' hypervisor sees the memory of the nodes and vouches for their boot",
        ),
    ),
)
