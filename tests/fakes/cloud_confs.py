"""A configuration for each cloud, as a user would write it, and what is wanted by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from constellation.config.machines import wanted_groups
from constellation.config.schema import Config
from constellation.providers.protocols import Desired

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DOCUMENT", "UID", "clouds_yaml", "conf", "desired"]

UID = "constell-ab12cd"
DOCUMENT = b'{"document":1}'
_HOME = ["192.0.2.0/24"]
_PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "azure": (
        "azure-sev-snp",
        {
            "subscription": "0b1c2d3e-0000-4000-8000-000000000001",
            "tenant": "0b1c2d3e-0000-4000-8000-000000000002",
            "location": "germanywestcentral",
            "zones": ["1", "2"],
            "resourceGroup": "constell-rg",
            "image": "/subscriptions/0b1c2d3e-0000-4000-8000-000000000001/resourceGroups/images"
            "/providers/Microsoft.Compute/galleries/mine/images/node/versions/1.0.0",
            "identityControlPlanes": "/subscriptions/x/cp",
            "identityWorkers": "/subscriptions/x/workers",
        },
    ),
    "gcp": (
        "gcp-sev-snp",
        {
            "project": "project",
            "region": "europe-west3",
            "zones": ["europe-west3-b"],
            "image": "projects/project/global/images/node",
            "serviceAccountControlPlanes": "cp@project.iam.gserviceaccount.com",
            "serviceAccountWorkers": "worker@project.iam.gserviceaccount.com",
        },
    ),
    "aws": (
        "aws-sev-snp",
        {"region": "eu-west-1", "zones": ["eu-west-1a"], "image": "ami-12c6146b"},
    ),
    "openstack": (
        "qemu-vtpm",
        {
            "cloud": "mine",
            "controlPlanesCloud": "theirs",
            "cloudsYAML": "clouds.yaml",
            "zones": ["eu01-1", "eu01-2"],
            "image": "11111111-0000-4000-8000-000000000001",
            "floatingIPPool": "external",
        },
    ),
}


def conf(
    provider: str,
    *,
    control_planes: int = 1,
    workers: int = 1,
    variant: str = "",
    sources: tuple[str, ...] = ("https://files.example/constellation",),
    **changed: Any,
) -> Config:
    """Give a configuration; `changed` are fields of the provider's block."""
    usual, block = _PROVIDERS[provider]
    variant = variant or usual
    access = {"init": _HOME, "recovery": _HOME, "policy": _HOME}
    attestation: dict[str, Any] = {"variant": variant}
    if provider not in ("azure", "aws"):
        attestation["acceptWeaker"] = "a test"
    return Config.model_validate(
        {
            "provider": {provider: block | {"access": access, "tags": {"team": "blue"}} | changed},
            "attestation": attestation,
            "artifacts": {"sources": list(sources)},
            "nodeGroups": {
                "control_plane_default": {"role": "control-plane", "size": control_planes},
                "worker_default": {"role": "worker", "size": workers},
            },
        }
    )


def desired(config: Config, *, initialised: bool = False) -> Desired:
    """Give what `create` would ask for."""
    return Desired(
        groups=wanted_groups(config),
        image_path=getattr(config.provider, config.provider.name).image,
        node_document=DOCUMENT,
        artifacts_path="",
        state_disk_bytes=0,
        initialised=initialised,
    )


def clouds_yaml(folder: Path, *, auth_url: str = "https://keystone.example/v3") -> None:
    """Write the user's clouds.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clouds.yaml").write_text(
        "clouds:\n"
        "  mine:\n"
        "    auth_type: v3applicationcredential\n"
        "    region_name: RegionOne\n"
        "    auth:\n"
        f"      auth_url: {auth_url}\n"
        "      application_credential_id: owner\n"
        "      application_credential_secret: owner's sesame\n"
        "  theirs:\n"
        "    auth_type: v3applicationcredential\n"
        "    region_name: RegionOne\n"
        "    auth:\n"
        f"      auth_url: {auth_url}\n"
        "      application_credential_id: cred\n"
        "      application_credential_secret: sesame\n"
        "  components:\n"
        "    auth_type: v3applicationcredential\n"
        "    region_name: RegionOne\n"
        "    auth:\n"
        f"      auth_url: {auth_url}\n"
        "      application_credential_id: components\n"
        "      application_credential_secret: components' sesame\n"
    )
