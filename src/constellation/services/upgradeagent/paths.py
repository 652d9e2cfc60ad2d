"""Where the upgrade agent reads and writes on its node; names: docs/architecture/seams.md."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.services.artifact_shelf import door_of, shelf_of

if TYPE_CHECKING:
    from constellation.base.file_server import Lookup
    from constellation.kube.node_record import NodeRecord
    from constellation.services.artifact_shelf import Shelf

__all__ = ["REAL", "Paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Folders of one node; a test puts all of them below a folder of its own.

    `host` is what the machine gives its guest; `disk` is the state disk's file system.
    """

    state: Path
    kubernetes: Path
    host: Path
    run: Path
    disk: Path = Path("/run/state")

    def shelf(self, record: NodeRecord, sources: tuple[str, ...], *, ask: Lookup) -> Shelf:
        """Give where this node's artifacts are, or come to.

        Raises:
            FormatError: a source is none.
        """
        door = door_of(record.address, record.pod_network, record.service_cidr, record.mesh_cidr)
        return shelf_of(
            record.provider,
            host=self.host,
            disk=self.disk / "artifacts",
            mounts=self.run / "mounted",
            sources=sources,
            door=dataclasses.replace(door, ask=ask),
        )

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubernetes / "admin.conf"

    @property
    def pki(self) -> Path:
        """Kubernetes' certificates."""
        return self.kubernetes / "pki"

    @property
    def manifests(self) -> Path:
        """Static pods."""
        return self.kubernetes / "manifests"

    @property
    def retired(self) -> Path:
        """Static pods that were ended for good."""
        return self.kubernetes / "retired"

    @property
    def upgrade(self) -> Path:
        """What the agent keeps: steps and snapshots."""
        return self.state / "upgrade"

    def steps(self, serial: int) -> Path:
        """Give the record of finished steps under one policy."""
        return self.upgrade / f"steps-{serial}.json"

    def snapshot(self, serial: int) -> Path:
        """Give the etcd snapshot that was taken for one policy."""
        return self.upgrade / f"etcd-{serial}.db"


REAL = Paths(
    state=Path("/var/lib/constellation"),
    kubernetes=Path("/etc/kubernetes"),
    host=Path("/run/constellation/host"),
    run=Path("/run/constellation/upgrade"),
)
