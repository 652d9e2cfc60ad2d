"""What a control plane needs to keep groups of servers: an application credential and templates.

OpenStack gives machines no identity of their own, and user data is readable by everybody in the
machine and by the cloud, so the credential never stands there: `init` gives it to the first control
plane over attested TLS, KeyService to those that join (with their grant), and it lies on their
encrypted disks. It is restricted to our calls (`calls.access_rules`) and can be revoked alone.
Worker nodes have none.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from constellation.base import decode
from constellation.base.errors import FormatError, Unavailable
from constellation.base.secret import Secret
from constellation.providers.protocols import Role  # noqa: TC001 - read by decode

__all__ = [
    "ACCESS_FILE",
    "Access",
    "Components",
    "Pool",
    "Template",
    "dump_access",
    "load_access",
    "read_access",
]

ACCESS_FILE: Final = Path("/var/lib/constellation/keys/provider/access.json")
"""In a folder of its own: the operator's pod sees that folder, and none of the other keys."""
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A load balancer's pool that a group's machines are in, and the port they answer at."""

    pool_id: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How a machine of a group is made; the two volumes hold node image and state disk."""

    role: Role
    name_prefix: str
    flavor_id: str
    image_id: str
    network_id: str
    subnet_id: str
    security_group_ids: tuple[str, ...]
    availability_zones: tuple[str, ...]
    boot_volume_gb: int
    state_volume_gb: int
    volume_type: str
    pools: tuple[Pool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """What the cloud's own components have: a credential of theirs, and where they put things.

    `floating_network_id` empty: their load balancers are reached from inside alone.
    """

    credential_id: str
    credential_secret: Secret
    subnet_id: str
    floating_network_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The credential, where to use it, and the templates of the cluster's groups.

    `auth_url` ends with /v3; `certificates` (PEM, may be empty) are trusted for all services beside
    the usual ones; `components` None: the cloud's own components do not run.
    """

    auth_url: str
    region: str
    credential_id: str
    credential_secret: Secret
    certificates: str
    uid: str
    groups: dict[str, Template]
    components: Components | None = None


def dump_access(access: Access) -> Secret:
    """Write the file's bytes, which hold a secret.

    Without components the bytes are as they were before there were any: nodes of older clusters
    read them, and `apply` finds nothing to replace there.
    """
    fields = {f.name: getattr(access, f.name) for f in dataclasses.fields(access)}
    if access.components is None:
        del fields["components"]
    return Secret(decode.dump(fields))


def load_access(data: Secret) -> Access:
    """Read the file's bytes. Raises FormatError."""
    access = decode.load(Access, data.reveal(), what="OpenStack access", max_bytes=_MAX_BYTES)
    if not access.auth_url.rstrip("/").endswith("/v3"):
        raise FormatError("OpenStack access: auth_url does not end with /v3")
    return access


def read_access(path: Path = ACCESS_FILE) -> Access | None:
    """Read the access from this node's disk; None where there is none: it is a worker.

    Raises:
        FormatError: it is there and malformed. Unavailable: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return load_access(Secret(file.read(_MAX_BYTES + 1)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
