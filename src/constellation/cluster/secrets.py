"""What makes the user the owner: master secret and owner key, made once, never overwritten.

`constellation-mastersecret.json` (0600) holds both. Losing it means that no node can be recovered;
copying it means to own the cluster. Source: design, sections 6 and 9.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import decode, files
from constellation.base.errors import Conflict, FormatError, UserError
from constellation.base.secret import Secret
from constellation.crypto import derive, signing

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from constellation.config.workspace import Workspace

__all__ = ["ClusterSecrets", "make_secrets", "read_secrets"]

_VERSION = 1
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generation:
    generation: int
    key: Secret
    salt: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    version: int
    master_secrets: tuple[_Generation, ...]
    owner_key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSecrets:
    """Generation 1 of the master secret and the owner key (P-256)."""

    master: derive.MasterSecret
    owner_key: ec.EllipticCurvePrivateKey

    @property
    def owner_public_key(self) -> bytes:
        """Give the public half (DER SubjectPublicKeyInfo)."""
        return signing.spki(self.owner_key.public_key())

    @property
    def cluster_id(self) -> bytes:
        """Give the clusterID (32 bytes) that follows from the master secret."""
        return derive.cluster_id(self.master)


def make_secrets(workspace: Workspace) -> ClusterSecrets:
    """Make master secret and owner key, unless the workspace has them already.

    Raises:
        UserError: the file is there and cannot be used; it is left as it is.
    """
    path = workspace.master_secret
    if path.exists():
        return _read(path)
    generation = _Generation(
        generation=1,
        key=Secret.random(derive.MASTER_KEY_BYTES),
        salt=Secret.random(derive.MASTER_SALT_BYTES),
    )
    owner_key = signing.dump_private_key(signing.generate_key())
    file = _File(version=_VERSION, master_secrets=(generation,), owner_key=owner_key)
    files.write_atomic(path, decode.dump(file) + b"\n", mode=0o600)
    return _read(path)


def read_secrets(workspace: Workspace, *, cluster_id: bytes) -> ClusterSecrets:
    """Read the secrets of this very cluster.

    Raises:
        UserError: absent, readable for others, or damaged.
        Conflict: they are another cluster's.
    """
    secrets = _read(workspace.master_secret)
    if secrets.cluster_id != cluster_id:
        raise Conflict(
            f"{workspace.master_secret} belongs to cluster {secrets.cluster_id.hex()}, "
            f"the state file to {cluster_id.hex()}",
            hint="put the file that `create` made for this cluster back",
        )
    return secrets


def _read(path: Path) -> ClusterSecrets:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError("no such file", where=str(path), hint="put your copy of it back") from None
    if mode & 0o077:
        raise UserError(
            f"mode {mode:04o}, expected 0600: others could read it",
            where=str(path),
            hint=f"chmod 600 {path}",
        )
    try:
        return _parse(data.rstrip(b"\n"), path.name)
    except FormatError as error:
        raise UserError(str(error), hint="put your copy of the file back") from None


def _parse(data: bytes, name: str) -> ClusterSecrets:
    parsed = decode.load(_File, data, what=name, max_bytes=_MAX_BYTES)
    if parsed.version != _VERSION or not parsed.master_secrets:
        raise FormatError(f"{name}: version {parsed.version}, want {_VERSION}")
    first = parsed.master_secrets[0]
    master = derive.MasterSecret(key=first.key, salt=first.salt, generation=first.generation)
    return ClusterSecrets(master=master, owner_key=signing.load_private_key(parsed.owner_key))
