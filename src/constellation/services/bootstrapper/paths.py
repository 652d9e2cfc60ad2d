"""Where a node keeps what it was given and what it made; names: docs/architecture/seams.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["REAL", "Paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Folders of one node; a test puts all of them below a folder of its own."""

    state: Path
    kubernetes: Path
    kubelet: Path
    run: Path
    host: Path

    @property
    def keys(self) -> Path:
        """Secrets, 0600, in the encrypted folder."""
        return self.state / "keys"

    @property
    def steps(self) -> Path:
        """The record of finished steps."""
        return self.state / "steps.json"

    @property
    def policy(self) -> Path:
        """The newest signed cluster policy."""
        return self.state / "policy.json"

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


REAL = Paths(
    state=Path("/var/lib/constellation"),
    kubernetes=Path("/etc/kubernetes"),
    kubelet=Path("/var/lib/kubelet"),
    run=Path("/run/constellation"),
    host=Path("/run/constellation/host"),
)
