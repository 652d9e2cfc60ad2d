"""Which machines a provider has for a variant: types, disks, and who else must be believed.

One table a provider (`providers/NAME/catalogue.py`), its variants from strong to weak; `of` picks.
Only machines with four virtual CPUs or more are listed: a control plane needs them.
Source: design, section 7, and the vendors' pages that each table names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from constellation.attestation.model import Variant

__all__ = ["Catalogue", "CostClass", "Machine", "Offer", "cost_class"]


class CostClass(StrEnum):
    """What a cluster's machines cost by the month, as an order of magnitude only."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine type: virtual CPUs and memory in GiB."""

    name: str
    vcpus: int
    memory_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What there is for one variant.

    The first machine and the first disk type are the defaults. `weak`: what a user must accept in
    words before the variant is used; empty: it is as strong as the provider has. `regions` empty:
    not known to be bounded.
    """

    variant: Variant
    machines: tuple[Machine, ...]
    disk_types: tuple[str, ...]
    weak: str = ""
    regions: tuple[str, ...] = ()

    def machine(self, name: str) -> Machine | None:
        """Give the machine type of that name, the default for an empty one; None: no such."""
        return next((m for m in self.machines if name in ("", m.name)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything of one provider; `offers` from the strongest on.

    `open_machines`: machine types that are not listed are taken as well (each cloud has its own).
    """

    provider: str
    offers: tuple[Offer, ...]
    open_machines: bool = False

    def of(self, variant: Variant) -> Offer | None:
        """Give what there is for a variant; None where the provider has nothing."""
        return next((o for o in self.offers if o.variant is variant), None)

    @property
    def strongest(self) -> Offer:
        """Give the default."""
        return self.offers[0]


_MEDIUM_VCPUS, _HIGH_VCPUS = 16, 64


def cost_class(machines: tuple[tuple[Machine, int], ...]) -> CostClass:
    """Judge machines and their counts by their virtual CPUs: prices change, this does not."""
    vcpus = sum(machine.vcpus * count for machine, count in machines)
    if vcpus < _MEDIUM_VCPUS:
        return CostClass.LOW
    return CostClass.MEDIUM if vcpus < _HIGH_VCPUS else CostClass.HIGH
