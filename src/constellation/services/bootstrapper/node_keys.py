"""The keys that a node makes for itself, kept in its encrypted folder; only public halves leave it.

Made once: asked again, the same key is given. Each file has mode 0600 from its first byte on.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from constellation.base.files import write_atomic
from constellation.base.secret import Secret
from constellation.crypto.signing import dump_private_key, generate_key, load_private_key, spki

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from constellation.services.bootstrapper.paths import Paths

__all__ = [
    "FreshKeys",
    "NodeKeys",
    "fresh_keys",
    "install_kubelet",
    "keep",
    "load",
    "make_key",
    "private",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKeys:
    """Public halves: DER SubjectPublicKeyInfo (P-256); `mesh` X25519, 32 bytes."""

    kubelet_client: bytes
    kubelet_serving: bytes
    service: bytes
    mesh: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshKeys:
    """Keys in memory, before there is a disk to keep them on."""

    kubelet_client: EllipticCurvePrivateKey
    kubelet_serving: EllipticCurvePrivateKey
    service: EllipticCurvePrivateKey
    mesh: X25519PrivateKey

    @property
    def public(self) -> NodeKeys:
        """Give the public halves."""
        return NodeKeys(
            kubelet_client=spki(self.kubelet_client.public_key()),
            kubelet_serving=spki(self.kubelet_serving.public_key()),
            service=spki(self.service.public_key()),
            mesh=self.mesh.public_key().public_bytes_raw(),
        )


def fresh_keys() -> FreshKeys:
    """Make all four."""
    return FreshKeys(
        kubelet_client=generate_key(),
        kubelet_serving=generate_key(),
        service=generate_key(),
        mesh=X25519PrivateKey.generate(),
    )


def keep(keys: FreshKeys, *, paths: Paths) -> None:
    """Write all four to the encrypted folder; keys that are there already stay."""
    for name, key in (
        ("kubelet-client.pem", keys.kubelet_client),
        ("kubelet-serving.pem", keys.kubelet_serving),
        ("service.pem", keys.service),
    ):
        private(paths.keys / name, dump_private_key(key))
    # base64, as wg(8) writes keys
    private(paths.keys / "mesh.key", Secret(base64.b64encode(keys.mesh.private_bytes_raw())))


def load(*, paths: Paths) -> NodeKeys:
    """Read the public halves of the kept keys."""
    mesh = base64.b64decode((paths.keys / "mesh.key").read_bytes(), validate=True)
    return NodeKeys(
        kubelet_client=_public(paths.keys / "kubelet-client.pem"),
        kubelet_serving=_public(paths.keys / "kubelet-serving.pem"),
        service=_public(paths.keys / "service.pem"),
        mesh=X25519PrivateKey.from_private_bytes(mesh).public_key().public_bytes_raw(),
    )


def make_key(path: Path) -> EllipticCurvePrivateKey:
    """Give the P-256 key at `path`, made now if there is none."""
    private(path, dump_private_key(generate_key()))
    return load_private_key(Secret(path.read_bytes()))


def private(path: Path, secret: Secret) -> None:
    """Write a secret file (0600) unless it exists; its folder is for root alone."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(path, secret.reveal(), mode=0o600)


def install_kubelet(*, client_certificate: bytes, serving_certificate: bytes, paths: Paths) -> None:
    """Put kubelet's two certificates (PEM) with their keys where kubelet looks for them.

    The client's is the file that kubelet itself replaces when it renews it.
    """
    pki = paths.kubelet / "pki"
    client = (paths.keys / "kubelet-client.pem").read_bytes()
    serving = (paths.keys / "kubelet-serving.pem").read_bytes()
    first = pki / "kubelet-client-first.pem"
    write_atomic(first, client_certificate + client, mode=0o600)
    current = pki / "kubelet-client-current.pem"
    if not current.is_symlink():
        current.symlink_to(first)
    write_atomic(pki / "serving.crt", serving_certificate)
    write_atomic(pki / "serving.key", serving, mode=0o600)


def _public(path: Path) -> bytes:
    return spki(load_private_key(Secret(path.read_bytes())).public_key())
