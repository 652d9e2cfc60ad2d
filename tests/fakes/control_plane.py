"""A control plane's host in a folder: kubeadm, ctr and kubectl that work on it, and its API server.

kubeadm moves manifests as the real one does (old one to a backup, then the new one in) and can be
killed between two moves; the API server (TLS, a certificate of this node's CA) answers with the
version of the manifest that lies there, and not at all without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from constellation.base.errors import Unavailable
from constellation.crypto.signing import dump_private_key, generate_key, spki
from constellation.crypto.x509 import CertificateAuthority
from constellation.kube import units
from constellation.services.upgradeagent import manifests
from constellation.services.upgradeagent.paths import Paths
from constellation.trust import artifact_list
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList
from tests.fakes.upgrade_policy import policy_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import BinaryIO

    import pytest

    from constellation.trust.cluster_policy import ClusterPolicy

__all__ = ["NEW", "OLD", "Host", "Policies"]

OLD, NEW = "v1.35.3", "v1.36.2"
_COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")

_KUBEADM = """#!{python}
import json, os, pathlib, sys
home = pathlib.Path({home!r})
words = sys.argv[1:]
parts = pathlib.Path(words[words.index("--config") + 1]).read_text()
said = json.loads(parts)
with (home / "diary").open("a") as diary:
    diary.write("kubeadm " + " ".join(words[:4]) + "\\n")
if words[:4] != ["upgrade", "node", "phase", "control-plane"]:
    sys.exit(0)
assert said["node"]["patches"]["directory"] and said["node"]["etcdUpgrade"] is False
wanted = {version!r}
budget = home / "moves-left"
def move(old, new):
    if budget.exists():
        left = int(budget.read_text())
        if left == 0:
            os.kill(os.getpid(), 9)
        budget.write_text(str(left - 1))
    old.rename(new)
kubernetes = home / "kubernetes"
number = len(list((kubernetes / "tmp").glob("*"))) if (kubernetes / "tmp").exists() else 0
backup = kubernetes / "tmp" / f"kubeadm-backup-manifests-2026-11-29-10-00-{{number:02}}"
backup.mkdir(parents=True)
for name in {components!r}:
    real = kubernetes / "manifests" / f"{{name}}.yaml"
    text = real.read_text()  # fails, as the real one does, where a manifest is missing
    new = text.rsplit(":", 1)[0] + ":" + wanted + "\\n"
    if new == text:
        continue
    made = backup / f"{{name}}.new"
    made.write_text(new)
    move(real, backup / real.name)
    move(made, real)
"""
_CTR = """#!{python}
import pathlib, sys
home = pathlib.Path({home!r})
images = home / "images"
if "ls" in sys.argv:
    print(images.read_text() if images.exists() else "")
elif "import" in sys.argv:
    with images.open("a") as file:
        file.write(pathlib.Path(sys.argv[-1]).read_text() + "\\n")
with (home / "diary").open("a") as diary:
    diary.write("ctr " + " ".join(sys.argv[4:5]) + "\\n")
"""
_KUBECTL = """#!{python}
import pathlib, sys
sys.stdin.read()
with (pathlib.Path({home!r}) / "diary").open("a") as diary:
    diary.write("kubectl " + " ".join(w for w in sys.argv[3:] if not w.startswith("-")) + "\\n")
"""


@dataclass(kw_only=True)
class Policies:
    """A policy and the artifact lists behind it, as a control plane keeps them."""

    policy: ClusterPolicy
    lists: dict[str, bytes]

    def verified(self) -> ClusterPolicy:
        return self.policy

    def artifact_list(self, version: str) -> bytes:
        if version not in self.lists:
            raise Unavailable(f"no artifact list of {version}")
        return self.lists[version]


@dataclass(kw_only=True)
class Host:
    """One control plane's host; `snapshot_data` is what its etcd holds."""

    home: Path
    name: str = "control-plane-0"
    snapshot_data: bytes = b"etcd's data"
    port: int = 0
    settled: list[tuple[str, int]] = field(default_factory=list)
    authority: CertificateAuthority = field(
        default_factory=lambda: CertificateAuthority.create(
            "kubernetes", now=datetime.now(UTC), lifetime=timedelta(days=1)
        )
    )

    @property
    def paths(self) -> Paths:
        return Paths(
            state=self.home / "state",
            kubernetes=self.home / "kubernetes",
            host=self.home / "host",
            disk=self.home / "disk",
            run=self.home / "run",
        )

    @property
    def store(self) -> Path:
        """Where the machine gives files by digest."""
        return self.paths.host / "artifacts/sha256"

    def install(self, patch: pytest.MonkeyPatch) -> Policies:
        """Write programs, manifests of `OLD` and artifacts of `NEW`; gives the policy of `NEW`."""
        programs = self.home / "bin"
        for folder in (programs, self.paths.manifests, self.paths.pki, self.store):
            folder.mkdir(parents=True)
        words = {"python": sys.executable, "home": str(self.home)}
        for name, text in (("ctr", _CTR), ("kubectl", _KUBECTL)):
            (programs / name).write_text(text.format(**words))
            (programs / name).chmod(0o755)
        patch.setattr(units, "BIN_DIR", programs)
        for name in _COMPONENTS:
            manifest = self.paths.manifests / f"{name}.yaml"
            manifest.write_text(f"    image: registry.k8s.io/{name}:{OLD}\n")
        (self.paths.manifests / "etcd.yaml").write_text("  image: registry.k8s.io/etcd:3.6.8-0\n")
        (self.paths.pki / "ca.crt").write_bytes(self.authority.certificate_pem)
        kubeadm = _KUBEADM.format(**words, version=NEW, components=_COMPONENTS)
        listed = ArtifactList(kubernetes_version=NEW, artifacts=()).with_artifacts(
            self.artifact("kubeadm", kubeadm.encode(), ArtifactKind.BINARY),
            *(
                self.artifact(image, image.encode(), ArtifactKind.IMAGE)
                for image in (f"registry.k8s.io/{name}:{NEW}" for name in _COMPONENTS)
            ),
        )
        data = artifact_list.dump(listed)
        policy = policy_of(data, kubernetes=NEW, serial=2)
        return Policies(policy=policy, lists={NEW: data})

    def artifact(self, name: str, data: bytes, kind: ArtifactKind) -> Artifact:
        digest = hashlib.sha256(data).hexdigest()
        path = self.store / digest
        path.write_bytes(data)
        path.chmod(0o755)
        return Artifact(name=name, kind=kind, sha256=digest, size_bytes=len(data))

    def diary(self) -> list[str]:
        path = self.home / "diary"
        return path.read_text().splitlines() if path.exists() else []

    async def began(self) -> None:
        if not self.diary():
            raise Unavailable("no program was run yet")

    async def upgraded(self) -> None:
        tags = [self.paths.manifests / f"{name}.yaml" for name in _COMPONENTS]
        if not all(p.exists() and NEW in p.read_text() for p in tags):
            raise Unavailable("a static pod has its old version")

    def kubeadm_dies_after(self, moves: int) -> None:
        (self.home / "moves-left").write_text(str(moves))

    def kubeadm_lives(self) -> None:
        (self.home / "moves-left").unlink(missing_ok=True)

    async def settle(self, folder: Path) -> None:
        """Note how far the diary was when a folder's file system was waited for."""
        self.settled.append((folder.name, len(self.diary())))

    async def snapshot(self, target: BinaryIO) -> None:
        target.write(self.snapshot_data)

    @contextlib.asynccontextmanager
    async def api_server(self) -> AsyncIterator[None]:
        """Answer at 127.0.0.1 as long as there is a manifest, with the version that it names."""
        key = generate_key()
        certificate = self.authority.issue(
            spki(key.public_key()),
            common_name="kube-apiserver",
            ips=("127.0.0.1",),
            usage="server",
            now=datetime.now(UTC),
            lifetime=timedelta(hours=1),
        )
        files = self.home / "api.crt", self.home / "api.key"
        files[0].write_bytes(certificate)
        files[1].write_bytes(dump_private_key(key).reveal())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readline()
            version = manifests.api_server_version(self.paths)
            if version:
                body = json.dumps({"gitVersion": version}) if b"/version" in request else "ok"
                writer.write(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())
            else:
                writer.transport.abort()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield
