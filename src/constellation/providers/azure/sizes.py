"""Which machine sizes does a region of Azure not have for this subscription, and whose quota?

Source: Azure, Compute, "Resource SKUs - List" (2021-07-01): `locationInfo` has the zones, what
`restrictions` name is there and not to be had; "Usage - List" has a quota for each family, named
after the size: Standard_DC4as_v5 counts against standardDCASv5Family.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from constellation.providers.answers import Fields

__all__ = ["missing_sizes", "quota_of"]

_SIZE: Final = re.compile(r"Standard_([A-Z]{1,4})\d{1,3}([a-z]{0,6})_(v\d{1,2})")


def quota_of(size: str) -> str:
    """Give the name of a size's quota in lower case; empty where the size has another form."""
    match = _SIZE.fullmatch(size)
    return f"standard{match[1]}{match[2]}{match[3]}family".lower() if match else ""


def missing_sizes(
    listed: Iterable[Fields], *, wanted: set[tuple[str, str]], region: str
) -> tuple[str, ...]:
    """Say which wanted sizes the zones ("": the region has none) do not have.

    Raises:
        FormatError: an entry is not what Azure describes.
    """
    names = {size for size, _ in wanted}
    offered: set[tuple[str, str]] = set()
    for entry in listed:
        if entry.text_or("resourceType", "") == "virtualMachines" and entry.text("name") in names:
            offered |= {(entry.text("name"), zone) for zone in _zones(entry, region)}
    return tuple(
        f"{f'zone {zone} of {region}' if zone else region} has no machines {size}"
        for size, zone in sorted(wanted - offered)
    )


def _zones(entry: Fields, region: str) -> set[str]:
    zones = {""}
    for info in entry.items("locationInfo", most=64):
        if info.text_or("location", "").lower() == region.lower():
            zones |= set(info.texts("zones", most=16))
    for restriction in entry.items("restrictions", most=64):
        if restriction.text_or("type", "") == "Location":
            return set()
        about = restriction.fields_or_none("restrictionInfo")
        zones -= set(about.texts("zones", most=16)) if about is not None else set()
    return zones
