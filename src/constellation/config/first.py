"""A first configuration for a provider: what must be filled in stands there as an example.

Zones, ids and names are examples that read back, so that the file is whole; its user puts the own
ones in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from constellation.base.errors import UserError
from constellation.config.machines import DEFAULT_STATE_DISK_GB
from constellation.config.providers.catalogues import ProviderName, catalogue
from constellation.config.schema import Config

if TYPE_CHECKING:
    from constellation.attestation.model import Variant
    from constellation.providers.catalogue import Offer

__all__ = ["PRESETS", "first_config"]

_UUID = "00000000-0000-0000-0000-000000000000"

PRESETS: dict[str, tuple[ProviderName, dict[str, Any]]] = {
    "local": (ProviderName.LOCAL, {}),
    "aws": (ProviderName.AWS, {"region": "eu-west-1", "zones": ["eu-west-1a"]}),
    "azure": (
        ProviderName.AZURE,
        {
            "subscription": _UUID,
            "tenant": _UUID,
            "location": "germanywestcentral",
            "resourceGroup": "constellation",
        },
    ),
    "gcp": (
        ProviderName.GCP,
        {"project": "my-project", "region": "europe-west3", "zones": ["europe-west3-b"]},
    ),
    "openstack": (ProviderName.OPENSTACK, {"cloud": "openstack"}),
    "stackit": (ProviderName.OPENSTACK, {"cloud": "stackit", "stackitProjectID": _UUID}),
    "baremetal": (
        ProviderName.BAREMETAL,
        {
            "hosts": {"control_plane_default": ["192.0.2.1"], "worker_default": ["192.0.2.2"]},
            "endpoint": "192.0.2.1:6443",
        },
    ),
}
"""What `config generate` takes, and the provider's block that it begins with."""


def first_config(preset: str, *, variant: Variant | None, accept_weaker: str) -> Config:
    """Give the first configuration of a preset.

    Raises:
        UserError: the provider has no such variant, or one that needs words, and there are none.
    """
    name, block = PRESETS[preset]
    known = catalogue(name)
    offer = known.strongest if variant is None else known.of(variant)
    if offer is None:
        raise UserError(
            f"expected a variant of {name} ({', '.join(o.variant for o in known.offers)}), found "
            f"{variant}",
            where="--attestation",
        )
    if offer.weak and not accept_weaker.strip():
        raise UserError(
            f"{offer.variant} needs your word: {offer.weak}",
            where="--accept-weaker",
            hint="add --accept-weaker with the reason why it will do",
        )
    attestation = {"variant": str(offer.variant)}
    if offer.weak:
        attestation["acceptWeaker"] = accept_weaker
    return Config.model_validate(
        {
            "provider": {str(name): block},
            "attestation": attestation,
            **({"nodeGroups": _groups(offer)} if offer.machines else {}),
        }
    )


def _groups(offer: Offer) -> dict[str, dict[str, Any]]:
    machine = {
        "instanceType": offer.machines[0].name,
        "stateDiskGB": DEFAULT_STATE_DISK_GB,
        "stateDiskType": offer.disk_types[0],
    }
    return {
        "control_plane_default": {"role": "control-plane", "size": 3, **machine},
        "worker_default": {"role": "worker", "size": 2, **machine},
    }
