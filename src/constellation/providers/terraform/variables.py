"""The variables that all modules share, from configuration and desired machines.

One table for Azure, Google Cloud and OpenStack; each adds its own. See infra/NAME/variables.tf.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constellation.attestation.model import Variant
    from constellation.providers.protocols import Desired

__all__ = ["Shared", "shared_variables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the configuration says about every cloud.

    `access` has the networks for each port by its name in the configuration.
    """

    region: str
    variant: Variant
    node_network: str
    access: Mapping[str, tuple[str, ...]]
    internal: bool
    custom_endpoint: str
    extra_names: tuple[str, ...]
    tags: Mapping[str, str]


def shared_variables(
    shared: Shared, uid: str, desired: Desired, *, network: Mapping[str, str] | None
) -> dict[str, object]:
    """Give the variables; `network` None: one is made."""
    return {
        "uid": uid,
        "region": shared.region,
        "node_groups": {
            group.name: {
                "role": str(group.role),
                "size": group.size,
                "zones": list(group.zones),
                "instance_type": group.instance_type,
                "state_disk_gb": group.state_disk_gb,
                "state_disk_type": group.state_disk_type,
            }
            for group in desired.groups
        },
        "image": desired.image_path,
        "node_document": base64.b64encode(desired.node_document).decode(),
        "variant": str(shared.variant),
        "node_cidr": shared.node_network,
        "existing_network": dict(network) if network is not None else None,
        "internal_load_balancer": shared.internal,
        "access": {name: list(networks) for name, networks in shared.access.items()},
        "initialised": desired.initialised,
        "custom_endpoint": shared.custom_endpoint,
        "extra_names": list(shared.extra_names),
        "tags": dict(shared.tags),
    }
