"""What every step works with: the workspace, the wish, and the outside world as a few callables.

The node image, Kubernetes and the services come as `Supplies`, so that the engine builds nothing
itself; machines come from a provider, clocks and the Kubernetes API as functions. A scenario test
puts its own world in here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from constellation.base.file_server import Door
from constellation.trust.artifact_sources import NEVER_ASKED

if TYPE_CHECKING:
    from datetime import datetime

    from constellation.base.progress import Report
    from constellation.base.secret import Secret
    from constellation.config.schema import Config
    from constellation.config.workspace import Workspace
    from constellation.providers.protocols import Desired, Infrastructure
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.cluster_policy import AcceptedRelease
    from constellation.trust.release import Release

__all__ = ["Context", "KubernetesNode", "NodeImage", "Supplies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImage:
    """A node image on this machine: the file, what its registers must hold, who signed it.

    `release_root` is DER SubjectPublicKeyInfo of the key that signed the image's manifest.
    """

    path: Path
    release: AcceptedRelease
    release_root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesNode:
    """A node as the Kubernetes API shows it (for people: it decides nothing about trust)."""

    name: str
    role: str
    ready: bool
    version: str
    address: str
    reason: str


class Supplies(Protocol):
    """What a cluster is made of, ready in the cache folder `cache` (files in `sha256/HEX`)."""

    @property
    def cache(self) -> Path:
        """Give the folder that the nodes' provider serves artifacts from."""
        ...

    async def artifacts(self, config: Config, *, report: Report) -> ArtifactList:
        """Have every file of the wanted Kubernetes version and the services bundle."""
        ...

    async def node_image(self, *, report: Report) -> NodeImage:
        """Have the node image."""
        ...

    async def release_files(
        self, release: Release, config: Config, *, kubernetes: str, report: Report
    ) -> Path:
        """Have all files of a verified release for one Kubernetes version; gives its node image.

        Raises:
            UserError: they are not to be had here; says which.
        """
        ...


_DOOR = Door(closed=NEVER_ASKED)

ListNodes = Callable[[Path], Awaitable[tuple[KubernetesNode, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One run of the engine.

    `infrastructure` gives the provider's view of the resources with this uid; `owned` lists the
    uids that the provider has marked as made from this workspace, so that they are found without
    the state file; `list_nodes` asks the API that a kubeconfig names; `now` reads the clock (UTC);
    `wait_s` bounds each wait;
    `resources` says, for a uid, what of a cloud's resources would change, a line each; None:
    nothing plans; `keeps_machines`: they are somebody's own, so that a removal leaves them;
    `abandon`: init may leave the node that it chose before; `node_access` makes, for
    a uid, what control planes ask the provider's API with; None: machines have identities of their
    own; `ask_room` refuses (Conflict) if the provider has no room for groups of these sizes; None:
    it has no quotas that could be asked; `door`: where this machine may fetch artifacts from.
    """

    workspace: Workspace
    config: Config
    supplies: Supplies
    infrastructure: Callable[[str], Infrastructure]
    owned: Callable[[], tuple[str, ...]]
    list_nodes: ListNodes
    now: Callable[[], datetime]
    report: Report
    wait_s: float
    abandon: bool = False
    keeps_machines: bool = False
    resources: Callable[[str, Desired], Awaitable[tuple[str, ...]]] | None = None
    node_access: Callable[[str, Desired], Awaitable[Secret]] | None = None
    ask_room: Callable[[str, Desired], Awaitable[None]] | None = None
    door: Door = _DOOR
