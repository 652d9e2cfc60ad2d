"""What may stand in constellation-conf.yaml: one table of fields, from which all else follows.

A field's type, default and description give parser, validation, JSON schema, the commented example
file and the reference page. Keys are camelCase in the file. Unknown keys are errors.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from constellation.attestation.model import Variant
from constellation.base.errors import Conflict
from constellation.config.artifacts import Artifacts
from constellation.config.node_group import Autoscaling, NodeGroup, check_group
from constellation.config.providers.aws import AwsProvider
from constellation.config.providers.azure import AzureProvider
from constellation.config.providers.baremetal import BaremetalProvider
from constellation.config.providers.catalogues import ProviderName, catalogue
from constellation.config.providers.gcp import GcpProvider
from constellation.config.providers.local import ArtifactSource, LocalProvider
from constellation.config.providers.openstack import OpenStackProvider
from constellation.config.section import Section
from constellation.providers.protocols import Role

__all__ = [
    "CONFIG_VERSION",
    "DEFAULT_KUBERNETES_VERSION",
    "KUBERNETES_VERSIONS",
    "ArtifactSource",
    "Attestation",
    "Autoscaling",
    "Config",
    "KubernetesVersion",
    "LocalProvider",
    "NodeGroup",
    "Provider",
    "ProviderName",
    "Releases",
]

CONFIG_VERSION: Literal[1] = 1

KubernetesVersion = Literal["v1.36.2", "v1.36.1", "v1.35.3"]
KUBERNETES_VERSIONS: tuple[str, ...] = get_args(KubernetesVersion)
DEFAULT_KUBERNETES_VERSION: KubernetesVersion = "v1.36.2"


class Provider(Section):
    """Where the machines come from: one of these."""

    local: LocalProvider | None = None
    """This machine."""

    aws: AwsProvider | None = None
    """Amazon Web Services."""

    azure: AzureProvider | None = None
    """Microsoft Azure."""

    gcp: GcpProvider | None = None
    """Google Cloud."""

    openstack: OpenStackProvider | None = None
    """An OpenStack cloud, STACKIT for one."""

    baremetal: BaremetalProvider | None = None
    """Hosts of your own, named by address."""

    @model_validator(mode="before")
    @classmethod
    def _this_machine_by_default(cls, found: Any) -> Any:
        return {"local": {}} if found == {} else found

    @model_validator(mode="after")
    def _one(self) -> Provider:
        named = [name for name in ProviderName if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"expected one provider, found {', '.join(named) or 'none'}")
        return self

    @property
    def name(self) -> ProviderName:
        """Give which one it is."""
        return next(name for name in ProviderName if getattr(self, name) is not None)

    @property
    def wants_integration(self) -> bool:
        """Say whether the cloud's own components shall run in the cluster."""
        return bool(getattr(getattr(self, self.name), "cloud_integration", False))

    def this_machine(self) -> LocalProvider:
        """Give the local provider's block.

        Raises:
            Conflict: the machines are elsewhere.
        """
        if self.local is None:
            raise Conflict(
                f"works on the local provider only, and this cluster is on {self.name}",
                hint="`constellation config generate local` begins a cluster on this machine",
            )
        return self.local


class Attestation(Section):
    """How nodes prove what they run."""

    variant: Annotated[Variant, Field(strict=False)] = Variant.LOCAL_VTPM
    """The way to attest; without it, the strongest of the provider. "local-vtpm" trusts this
    machine: it is for development."""

    accept_weaker: Annotated[str, Field(max_length=200)] = ""
    """Why a variant will do that believes more than chips: your words, needed for such a one only.
    `constellation config instance-types` says whom it believes."""

    minimum_release: Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$")] = "0.1.0"
    """The oldest release of the node image that may ever run in this cluster. Fixed by `create`."""


class Releases(Section):
    """Where releases come from."""

    repository: Annotated[str, Field(pattern=r"^([^:]*|https://.+|http://127\.0\.0\.1[:/].+)$")] = (
        ""
    )
    """Folder (from here) or https address of a release repository. Empty: this machine's own, of
    what this program builds."""

    root: str = ""
    """File (from here) with the root metadata to trust first; needed with a repository."""


def _default_groups() -> dict[str, NodeGroup]:
    return {
        "control_plane_default": NodeGroup(role=Role.CONTROL_PLANE, size=1),
        "worker_default": NodeGroup(role=Role.WORKER, size=1),
    }


class Config(Section):
    """Configuration of one Constellation cluster."""

    version: Literal[1] = CONFIG_VERSION
    """Version of this file's format."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,12}$")] = "constell"
    """Name of the cluster: lower-case letters, digits and dashes, 13 at most."""

    kubernetes_version: KubernetesVersion = DEFAULT_KUBERNETES_VERSION
    """Version of Kubernetes. `constellation config kubernetes-versions` lists what is supported."""

    release: Annotated[str, Field(pattern=r"^(\d+\.\d+\.\d+(-dev\.\d+)?)?$")] = ""
    """Version of the release that the cluster shall follow. Empty: none, it keeps the node image
    that it was made with. `constellation upgrade check` lists what there is."""

    provider: Provider = Provider(local=LocalProvider())
    """Where the machines come from: one of local, aws, azure, gcp, openstack, baremetal."""

    releases: Releases = Releases()
    """Where releases come from."""

    artifacts: Artifacts = Artifacts()
    """Where nodes fetch Kubernetes, its images and the services from."""

    attestation: Attestation = Attestation()
    """How nodes prove what they run."""

    node_groups: dict[str, NodeGroup] = Field(default_factory=_default_groups)
    """Groups of machines. The control planes together must be an odd number: 1, 3, 5 or 7."""

    service_cidr: Annotated[str, Field(alias="serviceCIDR")] = "10.96.0.0/12"
    """Addresses of Kubernetes Services (IPv4)."""

    @model_validator(mode="before")
    @classmethod
    def _strongest_by_default(cls, found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        attestation = found.get("attestation", {})
        if not isinstance(attestation, dict) or "variant" in attestation:
            return found
        variant = str(catalogue(_provider_of(found.get("provider"))).strongest.variant)
        return {**found, "attestation": {"variant": variant, **attestation}}

    @field_validator("artifacts")
    @classmethod
    def _local_has_its_own(cls, artifacts: Artifacts, info: ValidationInfo) -> Artifacts:
        provider = info.data.get("provider")
        if provider is not None and provider.local is not None and artifacts.sources:
            raise ValueError("expected none on the local provider: nodes get this machine's files")
        return artifacts

    @field_validator("attestation")
    @classmethod
    def _variant(cls, attestation: Attestation, info: ValidationInfo) -> Attestation:
        if (provider := info.data.get("provider")) is None:
            return attestation
        offers = catalogue(provider.name).offers
        offer = catalogue(provider.name).of(attestation.variant)
        if offer is None:
            raise ValueError(
                f"expected a variant of {provider.name} ({', '.join(o.variant for o in offers)}), "
                f"found {attestation.variant}"
            )
        if offer.weak and not attestation.accept_weaker.strip():
            raise ValueError(
                f"expected acceptWeaker to say why {attestation.variant} will do, found nothing: "
                f"{offer.weak}"
            )
        return attestation

    @field_validator("node_groups")
    @classmethod
    def _machines(cls, groups: dict[str, NodeGroup], info: ValidationInfo) -> dict[str, NodeGroup]:
        provider, attestation = info.data.get("provider"), info.data.get("attestation")
        if provider is not None and attestation is not None:
            offers = catalogue(provider.name)
            offer = offers.of(attestation.variant)
            for name, group in groups.items():
                if offer is not None:
                    check_group(name, group, offer, closed=not offers.open_machines)
        return groups

    @field_validator("node_groups")
    @classmethod
    def _groups(cls, groups: dict[str, NodeGroup]) -> dict[str, NodeGroup]:
        for name in groups:
            if not name.replace("_", "").isalnum() or not name.islower() or len(name) > _LONGEST:
                raise ValueError(
                    f"expected names of lower-case letters, digits and _ (at most {_LONGEST}), "
                    f"found {name!r}"
                )
        total = sum(g.size for g in groups.values() if g.role is Role.CONTROL_PLANE)
        if total not in (1, 3, 5, 7):
            raise ValueError(f"expected 1, 3, 5 or 7 control planes in all groups, found {total}")
        return groups

    @field_validator("service_cidr")
    @classmethod
    def _cidr(cls, text: str) -> str:
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError:
            raise ValueError(
                f"expected an IPv4 network like 10.96.0.0/12, found {text!r}"
            ) from None
        if not _WIDEST <= network.prefixlen <= _NARROWEST:
            raise ValueError(f"expected a prefix from /{_WIDEST} to /{_NARROWEST}, found {text!r}")
        for taken, what in _TAKEN:
            if network.overlaps(ipaddress.IPv4Network(taken)):
                raise ValueError(
                    f"expected a free network, found {text}: overlaps {what} ({taken})"
                )
        return text


def _provider_of(found: Any) -> ProviderName:
    """Tell which provider a configuration that is not validated yet names; else the local one."""
    if isinstance(found, Provider):
        return found.name
    named = [n for n in ProviderName if isinstance(found, dict) and n in found]
    return named[0] if len(named) == 1 else ProviderName.LOCAL


_LONGEST = 30
_WIDEST, _NARROWEST = 8, 24
# providers/local: nodes, pods, mesh; RFC 1122 loopback, RFC 3927 link-local
_TAKEN = (
    ("10.42.0.0/16", "the nodes' network"),
    ("10.244.0.0/16", "the pods' network"),
    ("10.43.0.0/16", "the mesh"),
    ("127.0.0.0/8", "the loopback network"),
    ("169.254.0.0/16", "the link-local network"),
)
