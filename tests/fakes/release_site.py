"""The official origins: release files, tar files, a registry with an index, its blob storage."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from constellation.releases.lock import LockedFile, LockedImage, VersionLock
from constellation.releases.official import Origins
from constellation.releases.recipes import NODE_PROGRAMS, image_recipes

if TYPE_CHECKING:
    from tests.fakes.origin_server import OriginServer

__all__ = ["ReleaseSite", "tar_gz"]

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ARCHIVED = ("containerd", "ctr")


def tar_gz(files: dict[str, bytes]) -> bytes:
    """Write a compressed tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class ReleaseSite:
    """Fills two servers with everything of one version; `wanted` is the lock that fits it."""

    def __init__(self, server: OriginServer, storage: OriginServer, version: str) -> None:
        self.server = server
        self.storage = storage
        self.origins = Origins(
            moved={"dl.k8s.io": f"{server.url}/dl", "registry.k8s.io": f"{server.url}/registry"}
        )
        server.private = "/registry/v2"
        server.files["/registry/v2/"] = b""
        files = [self._program(name) for name in NODE_PROGRAMS if name not in _ARCHIVED]
        files = [file for file in files if file.programs[""] != "kube-proxy"]
        files.append(self._archive())
        self.server.files["/dl/kubelet.sha256"] = b"anything"
        files.sort(key=lambda file: file.programs.get("") != "kubelet")
        images = [
            LockedImage(reference=i.reference, sha256=self.image(i.reference, [{"x": b"y"}]))
            for i in image_recipes(version)
        ]
        proxy = f"registry.k8s.io/kube-proxy:{version}"
        old, new = {"usr/local/bin/kube-proxy": b"old"}, {"usr/local/bin/kube-proxy": b"new"}
        images.append(
            LockedImage(
                reference=proxy,
                sha256=self.image(proxy, [old, new]),
                programs={"usr/local/bin/kube-proxy": "kube-proxy"},
            )
        )
        self.wanted = VersionLock(source={}, files=tuple(files), images=tuple(images))

    def image(self, reference: str, layers: list[dict[str, bytes]]) -> str:
        """Publish an image for two architectures; give the digest of its index."""
        name = reference.partition("/")[2].rpartition(":")[0]
        base = f"/registry/v2/{name}"
        described = [self._blob(base, tar_gz(layer), "layer") for layer in layers]
        config = self._blob(base, json.dumps({"of": reference}).encode(), "config")
        manifest = json.dumps({"mediaType": _MANIFEST, "config": config, "layers": described})
        sha256 = self._document(base, manifest.encode())
        mine = {"mediaType": _MANIFEST, "digest": f"sha256:{sha256}", "size": len(manifest)}
        other = mine | {"digest": "sha256:" + "0" * 64, "platform": _platform("arm64")}
        index = {"mediaType": _INDEX, "manifests": [other, mine | {"platform": _platform("amd64")}]}
        return self._document(base, json.dumps(index).encode())

    def _blob(self, base: str, content: bytes, kind: str) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        # a registry sends its readers on to where the blobs lie
        self.server.redirects[f"{base}/blobs/sha256:{sha256}"] = (
            f"{self.storage.url}/storage/{sha256}"
        )
        self.storage.files[f"/storage/{sha256}"] = content
        return {"mediaType": kind, "digest": f"sha256:{sha256}", "size": len(content)}

    def _document(self, base: str, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self.server.files[f"{base}/manifests/sha256:{sha256}"] = content
        return sha256

    def _program(self, name: str) -> LockedFile:
        content = f"program {name}".encode()
        self.server.files[f"/dl/{name}"] = content
        sha256 = hashlib.sha256(content).hexdigest()
        return LockedFile(url=f"https://dl.k8s.io/{name}", sha256=sha256, programs={"": name})

    def _archive(self) -> LockedFile:
        content = tar_gz({f"./bin/{name}": b"#!" + name.encode() for name in _ARCHIVED})
        self.server.files["/dl/containerd.tar.gz"] = content
        return LockedFile(
            url="https://dl.k8s.io/containerd.tar.gz",
            sha256=hashlib.sha256(content).hexdigest(),
            programs={f"bin/{name}": name for name in _ARCHIVED},
        )


def _platform(architecture: str) -> dict[str, str]:
    return {"os": "linux", "architecture": architecture}
