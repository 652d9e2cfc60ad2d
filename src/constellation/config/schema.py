"""What may stand in constellation-conf.yaml: one table of fields, from which all else follows.

A field's type, default and description give parser, validation, JSON schema, the commented example
file and the reference page. Keys are camelCase in the file. Unknown keys are errors.
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from constellation.providers.protocols import Role

__all__ = [
    "CONFIG_VERSION",
    "DEFAULT_KUBERNETES_VERSION",
    "KUBERNETES_VERSIONS",
    "ArtifactSource",
    "Attestation",
    "Config",
    "KubernetesVersion",
    "LocalProvider",
    "NodeGroup",
    "Provider",
    "Releases",
]

CONFIG_VERSION: Literal[1] = 1

KubernetesVersion = Literal["v1.36.2", "v1.36.1", "v1.35.3"]
KUBERNETES_VERSIONS: tuple[str, ...] = get_args(KubernetesVersion)
DEFAULT_KUBERNETES_VERSION: KubernetesVersion = "v1.36.2"

_GIB = 1024**3
_MOST_NODES = 50


class ArtifactSource(StrEnum):
    """Where Kubernetes comes from (design, section 11)."""

    AUTO = "auto"
    OFFICIAL = "official"
    SOURCE = "source"


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


class NodeGroup(_Section):
    """Machines of one role that are made and replaced together."""

    role: Annotated[Role, Field(strict=False)]
    """What its nodes do: "control-plane" or "worker"."""

    size: Annotated[int, Field(ge=0, le=_MOST_NODES)]
    """How many machines."""


class LocalProvider(_Section):
    """A cloud in a folder of this machine: nodes are systemd-nspawn machines with a TPM each."""

    offline: bool = False
    """True: the cluster's image registry never asks the internet, only what was loaded into it."""

    state_disk_gb: Annotated[int, Field(ge=2, le=1000, alias="stateDiskGB")] = 10
    """Size of each node's state disk in GiB; a sparse file, it takes what is written."""

    artifact_source: Annotated[ArtifactSource, Field(strict=False)] = ArtifactSource.AUTO
    """Where Kubernetes comes from: "official" (downloaded), "source" (built here from its Go
    modules), "auto" (official where the network allows it)."""

    @property
    def state_disk_bytes(self) -> int:
        """Give the size of a state disk in bytes."""
        return self.state_disk_gb * _GIB


class Provider(_Section):
    """Where the machines come from."""

    local: LocalProvider = LocalProvider()
    """This machine."""


class Attestation(_Section):
    """How nodes prove what they run."""

    variant: Literal["local-vtpm"] = "local-vtpm"
    """The way to attest. "local-vtpm" trusts this machine: it is for development."""

    minimum_release: Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$")] = "0.1.0"
    """The oldest release of the node image that may ever run in this cluster. Fixed by `create`."""


class Releases(_Section):
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


class Config(_Section):
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

    provider: Provider = Provider()
    """Where the machines come from."""

    releases: Releases = Releases()
    """Where releases come from."""

    attestation: Attestation = Attestation()
    """How nodes prove what they run."""

    node_groups: dict[str, NodeGroup] = Field(default_factory=_default_groups)
    """Groups of machines. The control planes together must be an odd number: 1, 3, 5 or 7."""

    service_cidr: Annotated[str, Field(alias="serviceCIDR")] = "10.96.0.0/12"
    """Addresses of Kubernetes Services (IPv4)."""

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
