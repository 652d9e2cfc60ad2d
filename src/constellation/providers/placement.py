"""Where a machine is and what its cloud calls it: a providerID and labels of its Node. Pure.

The bootstrapper writes both into kubelet's arguments, so that no controller with a cloud's
credentials has to name nodes. They are claims of the cloud (design, section 2): the scheduler
spreads pods by them, storage finds its zone, and they decide nothing about trust.
Source: Kubernetes, "Well-Known Labels, Annotations and Taints"; "Labels and Selectors" (values).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from constellation.base.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Awaits", "Configures", "Placed", "Placement"]

_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PROVIDER_ID: Final = re.compile(r"[a-z]{2,16}://[A-Za-z0-9._/()-]{1,400}")
_REGION: Final = "topology.kubernetes.io/region"
_ZONE: Final = "topology.kubernetes.io/zone"
_TYPE: Final = "node.kubernetes.io/instance-type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A machine as Kubernetes' components of its cloud know it; empty texts are not said."""

    provider_id: str
    region: str
    zone: str
    machine_type: str

    def checked(self) -> Placement:
        """Give itself back. Raises FormatError: a text is none that a Node may have."""
        if not _PROVIDER_ID.fullmatch(self.provider_id):
            raise FormatError(f"providerID {self.provider_id[:80]!r}: expected CLOUD://PATH")
        for name, value in self.labels.items():
            if not _VALUE.fullmatch(value):
                raise FormatError(f"label {name}: {value[:80]!r} is no value of a label")
        return self

    @property
    def labels(self) -> dict[str, str]:
        """Give the Node's labels."""
        said = {_REGION: self.region, _ZONE: self.zone, _TYPE: self.machine_type}
        return {name: value for name, value in said.items() if value}


@runtime_checkable
class Placed(Protocol):
    """Metadata of a cloud whose machines have a placement."""

    async def placement(self) -> Placement:
        """Say where this machine is. Raises Unavailable, FormatError."""
        ...


@runtime_checkable
class Configures(Protocol):
    """Metadata of a cloud whose own components read where their cluster lies."""

    async def component_config(self) -> Mapping[str, bytes]:
        """Give files by name; no secret is in them. Raises Unavailable, FormatError."""
        ...


@runtime_checkable
class Awaits(Protocol):
    """Metadata of a cloud that waits until a machine says that it was set up."""

    async def report_ready(self) -> None:
        """Say it, once; nothing is learned from it. Raises Unavailable, Conflict, FormatError."""
        ...
