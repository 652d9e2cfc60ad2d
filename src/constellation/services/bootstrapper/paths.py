"""Where a node keeps what it was given and what it made; names: docs/architecture/seams.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.services.artifact_shelf import door_of, shelf_of
from constellation.services.kept_policy import KeptPolicy

if TYPE_CHECKING:
    from constellation.services.artifact_shelf import Shelf
    from constellation.trust.node_document import NodeDocument

__all__ = ["REAL", "Paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Folders of one node; a test puts all of them below a folder of its own.

    `provider` is where this machine is from, as its measured command line says; `disk` is the state
    disk's file system, of which `artifacts` is public.
    """

    state: Path
    kubernetes: Path
    kubelet: Path
    run: Path
    host: Path
    provider: str = "local"
    disk: Path = Path("/run/state")

    @property
    def keys(self) -> Path:
        """Secrets, 0600, in the encrypted folder."""
        return self.state / "keys"

    @property
    def access(self) -> Path:
        """What a control plane asks the provider's API with, where machines have no identity."""
        return self.keys / "provider" / "access.json"

    @property
    def steps(self) -> Path:
        """The record of finished steps."""
        return self.state / "steps.json"

    @property
    def ticket(self) -> Path:
        """What is left to use of the ticket of a join that is not done yet."""
        return self.state / "join-ticket.bin"

    def kept_policy(self, document: NodeDocument) -> KeptPolicy:
        """Give the place of the newest cluster policy."""
        return KeptPolicy(state=self.state, document=document)

    @property
    def pki(self) -> Path:
        """Kubernetes' certificates."""
        return self.kubernetes / "pki"

    @property
    def manifests(self) -> Path:
        """Static pods."""
        return self.kubernetes / "manifests"

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubernetes / "admin.conf"

    @property
    def services(self) -> Path:
        """The services bundle."""
        return self.run / "services"

    @property
    def gifts(self) -> Path:
        """Copies of what the machine gives, for pods: not every one gives all that they mount."""
        return self.run / "gifts"

    def shelf(self, sources: tuple[str, ...], *, own_address: str, inner: tuple[str, ...]) -> Shelf:
        """Give where this node's artifacts are, or come to; `inner` are the cluster's networks.

        Raises:
            FormatError: a source or network is none.
        """
        return shelf_of(
            self.provider,
            host=self.host,
            disk=self.disk / "artifacts",
            mounts=self.run / "mounted",
            sources=sources,
            door=door_of(own_address, *inner),
        )


REAL = Paths(
    state=Path("/var/lib/constellation"),
    kubernetes=Path("/etc/kubernetes"),
    kubelet=Path("/var/lib/kubelet"),
    run=Path("/run/constellation"),
    host=Path("/run/constellation/host"),
)
