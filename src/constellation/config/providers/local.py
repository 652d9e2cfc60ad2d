"""The block `provider.local`: a cloud in a folder of this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from constellation.config.section import Section

__all__ = ["ArtifactSource", "LocalProvider"]

_GIB = 1024**3


class ArtifactSource(StrEnum):
    """Where Kubernetes comes from (design, section 11)."""

    AUTO = "auto"
    OFFICIAL = "official"
    SOURCE = "source"


class LocalProvider(Section):
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
