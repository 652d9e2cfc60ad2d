"""Which files a cluster has on the workstation, and the lock that keeps two runs apart."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Workspace", "cache_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A folder with the files of one cluster (design, section 4)."""

    folder: Path

    @property
    def config(self) -> Path:
        """Give the path of the user's configuration."""
        return self.folder / "constellation-conf.yaml"

    @property
    def state(self) -> Path:
        """Give the path of the state file."""
        return self.folder / "constellation-state.yaml"

    @property
    def master_secret(self) -> Path:
        """Give the path of master secret and owner key (0600, never overwritten)."""
        return self.folder / "constellation-mastersecret.json"

    @property
    def kubeconfig(self) -> Path:
        """Give the path of the administrator's kubeconfig (0600)."""
        return self.folder / "constellation-admin.conf"

    @property
    def node_document(self) -> Path:
        """Give where the node document is written for whoever makes machines by hand."""
        return self.folder / "constellation-node-document.json"

    @property
    def hosts(self) -> Path:
        """Give the folder with what hosts of one's own read when they boot, one folder each."""
        return self.folder / "constellation-hosts"

    @property
    def terraform(self) -> Path:
        """Give the folder in which Terraform makes the cluster's resources, its state included."""
        return self.folder / "constellation-terraform"

    @property
    def terraform_iam(self) -> Path:
        """Give the folder in which Terraform makes the nodes' identities."""
        return self.folder / "constellation-iam-terraform"

    @property
    def cluster_log(self) -> Path:
        """Give the path of the first node's journal after an init that failed."""
        return self.folder / "constellation-cluster.log"

    @property
    def kubectl(self) -> Path:
        """Give the path of the kubectl that `init` puts beside the kubeconfig."""
        return self.folder / "kubectl"

    def release_chain(self, serial: int) -> Path:
        """Give the path of the release chain that goes with the policy of this serial."""
        return self.folder / "constellation-upgrade" / f"release-chain-{serial}.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this workspace against a second run of the program.

        Raises:
            Conflict: another process holds it.
        """
        lock = self.folder / ".constellation.lock"
        with files.lock(lock, what=f"workspace {self.folder}"):
            yield


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Give the user's cache folder of this program (XDG_CACHE_HOME is honoured if absolute)."""
    variables = os.environ if environment is None else environment
    base = Path(variables.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path(variables.get("HOME") or Path.home()) / ".cache"
    return base / "constellation"
