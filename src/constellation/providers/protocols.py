"""What any cloud must offer: machines to the workstation, facts to a node, groups to the operator.

Everything that comes back is a claim of an untrusted party (design, section 2): bounded, parsed
strictly, and never the reason to give a node a role or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from constellation.base.progress import Report

__all__ = [
    "Desired",
    "Group",
    "Infrastructure",
    "InfrastructureState",
    "Instance",
    "Metadata",
    "NodeGroups",
    "Role",
]


class Role(StrEnum):
    """What a node does in its cluster."""

    CONTROL_PLANE = "control-plane"
    WORKER = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One machine as its provider describes it.

    The three endpoints are host:port as the workstation reaches them; empty on a node's own view.
    `state` is the provider's word ("running", "off", "starting", "crashed").
    """

    instance_id: str
    group: str
    role: Role
    address: str
    state: str
    init_endpoint: str = ""
    recovery_endpoint: str = ""
    verify_endpoint: str = ""
    policy_endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A node group as wanted: `size` machines of one role.

    The rest is for clouds: the machine's type, its zones in order, the state disk's size in GiB and
    its type. Empty and 0: whatever the provider takes by default.
    """

    name: str
    role: Role
    size: int
    instance_type: str = ""
    zones: tuple[str, ...] = ()
    state_disk_gb: int = 0
    state_disk_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the workstation wants from a provider.

    `image_path` is a file, or a cloud's name of an image. Machines get `node_document` as their
    user data: it is measured and holds no secret. `initialised`: the cluster runs, so that nobody
    needs the way to a fresh node any more, and a cloud closes it. `api_ca` (PEM): who certifies the
    API servers, once there are some; a load balancer that asks them how they are verifies them.
    """

    groups: tuple[Group, ...]
    image_path: str
    node_document: bytes
    artifacts_path: str
    state_disk_bytes: int
    initialised: bool = False
    api_ca: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfrastructureState:
    """What exists: endpoints as host:port, machines, and the CAs (DER) that certify its AKs."""

    uid: str
    endpoint: str
    user_endpoint: str
    api_sans: tuple[str, ...]
    instances: tuple[Instance, ...]
    trust_roots: tuple[bytes, ...]


class Infrastructure(Protocol):
    """The provider as the workstation sees it; every call may be repeated."""

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Create what is missing."""
        ...

    async def observe(self) -> InfrastructureState | None:
        """Say what exists; None where nothing does."""
        ...

    async def destroy(self, *, report: Report) -> None:
        """Remove everything."""
        ...

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console, 1 MiB at most."""
        ...


class Metadata(Protocol):
    """The provider as a node sees it."""

    async def self_(self) -> Instance:
        """Say who this machine is, as the provider has it."""
        ...

    async def peers(self) -> tuple[Instance, ...]:
        """List the machines of this cluster."""
        ...

    async def user_data(self) -> bytes:
        """Give the node document's bytes, 64 KiB at most."""
        ...


class NodeGroups(Protocol):
    """The provider as the operator sees it."""

    async def create(self, group: str) -> Instance:
        """Add one machine to a group."""
        ...

    async def delete(self, instance_id: str) -> None:
        """Take a machine out of the load balancer and remove it; done already is not an error."""
        ...

    async def list_instances(self) -> tuple[Instance, ...]:
        """List all machines of this cluster."""
        ...
