"""The master secret on a control plane's encrypted disk: canonical JSON of key, salt, generation.

`/var/lib/constellation/keys/master-secret.json`, 0600, written by the bootstrapper, read by
KeyService and JoinService. Source: design, section 9. Nothing here does I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from constellation.base import decode
from constellation.base.errors import Conflict
from constellation.base.secret import Secret
from constellation.crypto.derive import MasterSecret, cluster_id

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE_MODE", "FILE_NAME", "dump_master_secret", "load_master_secret", "of_cluster"]

FILE_NAME: Final = "master-secret.json"
FILE_MODE: Final = 0o600
_MAX_BYTES = 4096


def dump_master_secret(master: MasterSecret) -> Secret:
    """Write the file's content; store it with `base.files.write_atomic(…, mode=FILE_MODE)`."""
    return Secret(decode.dump(master))


def load_master_secret(content: Secret) -> MasterSecret:
    """Read what `dump_master_secret` wrote.

    Raises:
        FormatError: something else.
    """
    return decode.load(MasterSecret, content.reveal(), what="master secret", max_bytes=_MAX_BYTES)


def of_cluster(master: MasterSecret, *, expected: bytes, where: Path) -> MasterSecret:
    """Check that the master secret is the one of this node's cluster (clusterID, 32 bytes).

    Raises:
        Conflict: it gives another clusterID.
    """
    if (found := cluster_id(master)) != expected:
        raise Conflict(f"{where}: gives clusterID {found.hex()}, this node is {expected.hex()}'s")
    return master
