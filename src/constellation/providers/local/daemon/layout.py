"""Where everything of one local cloud lies; each name holds the id, so that it can be found again.

Design, section 12: state under /var/lib/constellation/ID, sockets under /run/constellation/ID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from constellation.base.errors import UserError

__all__ = ["RUN_ROOT", "STATE_ROOT", "Layout"]

STATE_ROOT = Path("/var/lib/constellation")
RUN_ROOT = Path("/run/constellation")

# a unix socket's path has at most 107 bytes (unix(7)): id 20, index 3, the rest is ours
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths and names of the cloud `id`."""

    id: str

    @classmethod
    def of(cls, id_: str) -> Layout:
        """Check the id. Raises UserError."""
        if not _ID.fullmatch(id_):
            raise UserError(
                f"{id_[:40]!r} cannot name a local cloud",
                where="--id",
                hint="1 to 20 of a-z, 0-9 and '-', not at either end",
            )
        return cls(id=id_)

    @property
    def name(self) -> str:
        """Name of its network namespace, cgroups and unit."""
        return f"constellation-{self.id}"

    @property
    def state(self) -> Path:
        """What survives a reboot of the machine."""
        return STATE_ROOT / self.id

    @property
    def run(self) -> Path:
        """Sockets and mount points."""
        return RUN_ROOT / self.id

    @property
    def socket(self) -> Path:
        """The daemon's own."""
        return self.run / "daemon.sock"

    @property
    def state_file(self) -> Path:
        """Records, JSON (`records.CloudRecord`)."""
        return self.state / "state.json"

    @property
    def log(self) -> Path:
        """The daemon's log lines."""
        return self.state / "daemon.log"

    @property
    def balancer_log(self) -> Path:
        """What haproxy says: connections that failed, servers that came and went."""
        return self.state / "haproxy.log"

    @property
    def workspace(self) -> Path:
        """Name of the user's folder that this cloud belongs to, as bytes of a path."""
        return self.state / "workspace"

    @property
    def lock(self) -> Path:
        """Held by the daemon for as long as it lives."""
        return self.state / "lock"

    def node_state(self, instance_id: str) -> Path:
        """Give the folder of a node's disk, TPM state and console."""
        return self.state / "nodes" / instance_id

    def node_run(self, instance_id: str) -> Path:
        """Give the folder of a node's root mount, host folder and swtpm's control socket."""
        # by the index alone: sockets lie below, and their paths are short (see _ID)
        return self.run / "nodes" / instance_id.rpartition("-")[2]

    def host_folder(self, instance_id: str) -> Path:
        """Give what the node sees as /run/constellation/host."""
        return self.node_run(instance_id) / "host"

    @property
    def host_netns(self) -> Path:
        """The machine's own network namespace, under a name that haproxy can use."""
        return Path("/run/netns") / f"{self.name}-host"

    def netns(self, instance_id: str = "") -> Path:
        """Give the bind of the cloud's network namespace, or of one node's."""
        return Path("/run/netns") / (f"{self.name}-{instance_id}" if instance_id else self.name)
