"""Do a group's machines fit the variant, and what are they once defaults are filled in?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.config.providers.catalogues import catalogue
from constellation.providers.protocols import Group

if TYPE_CHECKING:
    from constellation.config.schema import Config, NodeGroup
    from constellation.providers.catalogue import Offer

__all__ = ["DEFAULT_STATE_DISK_GB", "check_group", "wanted_groups"]

DEFAULT_STATE_DISK_GB = 30


def check_group(name: str, group: NodeGroup, offer: Offer, *, closed: bool) -> None:
    """Demand machine and disk types that the variant has.

    `closed`: the lists are complete, so that what is not in them does not exist.

    Raises:
        ValueError: with what was expected and found.
    """
    wanted = {
        "instanceType": group.instance_type,
        "stateDiskType": group.state_disk_type,
        "zones": group.zones,
        "stateDiskGB": group.state_disk_gb,
    }
    if not offer.machines:
        for key, value in wanted.items():
            if value is not None:
                raise ValueError(f"{name}: expected no {key}: these machines are what they are")
        return
    if not closed:
        return
    if group.instance_type is not None and offer.machine(group.instance_type) is None:
        some = ", ".join(m.name for m in offer.machines[:3])
        raise ValueError(
            f"{name}: expected an instanceType of {offer.variant} ({some}, …: `constellation "
            f"config instance-types`), found {group.instance_type}"
        )
    if group.state_disk_type is not None and group.state_disk_type not in offer.disk_types:
        raise ValueError(
            f"{name}: expected a stateDiskType of {', '.join(offer.disk_types)}, "
            f"found {group.state_disk_type}"
        )


def wanted_groups(config: Config) -> tuple[Group, ...]:
    """Give the groups as the provider is asked for them, with all defaults filled in."""
    offer = catalogue(config.provider.name).of(config.attestation.variant)
    block = getattr(config.provider, config.provider.name)
    if offer is None or not offer.machines:
        return tuple(
            Group(name=name, role=group.role, size=group.size)
            for name, group in config.node_groups.items()
        )
    return tuple(
        Group(
            name=name,
            role=group.role,
            size=group.size,
            instance_type=group.instance_type or offer.machines[0].name,
            zones=group.zones or block.zones,
            state_disk_gb=group.state_disk_gb or DEFAULT_STATE_DISK_GB,
            state_disk_type=group.state_disk_type or offer.disk_types[0],
        )
        for name, group in config.node_groups.items()
    )
