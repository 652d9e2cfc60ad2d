"""What are a group's machines once all defaults are filled in?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.config.providers.catalogues import catalogue
from constellation.providers.protocols import Group

if TYPE_CHECKING:
    from constellation.config.schema import Config

__all__ = ["DEFAULT_STATE_DISK_GB", "wanted_groups"]

DEFAULT_STATE_DISK_GB = 30


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
