"""What spares a node importing images: containerd's root after the import, as one squashfs.

A containerd with its own root, state and socket, in its own mount namespace, imports and unpacks
the images; its root is then packed. A node copies the two databases and binds snapshots and blobs
read-only. The databases hold times, so the squashfs differs from machine to machine: its digest is
recorded in the cache, under the digests of what it was made from, and travels in the artifact list.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constellation.base import decode, proc, tools_root
from constellation.base.digest import WrongDigest, digest_of
from constellation.base.errors import FormatError, Unavailable, UserError
from constellation.base.files import write_atomic
from constellation.base.progress import Progress
from constellation.base.retry import until_available
from constellation.trust.artifact_list import Artifact, ArtifactKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from constellation.base.progress import Report
    from constellation.releases.store import Store
    from constellation.trust.artifact_list import ArtifactList

__all__ = ["NAME", "ensure_content", "recorded_content"]

NAME = "containerd-content"
# what is inside; a change of the recipe below changes this and makes new files
_RECIPE = 3
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_IMPORT_TIMEOUT_S = 300.0
_PACK_TIMEOUT_S = 600.0
_RECORD_MAX_BYTES = 4096
# a node needs no more; containerd's own identity (introspection) above all is not for copying
_PACKED = (
    "io.containerd.content.v1.content",
    "io.containerd.metadata.v1.bolt",
    "io.containerd.snapshotter.v1.overlayfs",
)
# zstd at level 3: 2.9 s and 270 MB here; higher levels cost more time than they save
_SQUASHFS = ("-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress")
_SQUASHFS_TIMES = ("-mkfs-time", "0", "-all-time", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    sha256: str
    size_bytes: int


def recorded_content(artifacts: ArtifactList, *, store: Store) -> Artifact | None:
    """Give the content that was made of these images before, if it is still there and whole."""
    try:
        data = _record_path(artifacts, store).read_bytes()
        record = decode.load(_Record, data, what="content record", max_bytes=_RECORD_MAX_BYTES)
    except (FileNotFoundError, FormatError):
        return None
    if not store.has(record.sha256, size_bytes=record.size_bytes):
        return None
    return _artifact(record)


async def ensure_content(
    artifacts: ArtifactList, *, store: Store, tools: Path | None, report: Report
) -> Artifact:
    """Give the content artifact of these images; make it if the cache has none (needs root).

    Args:
        artifacts: with containerd, ctr and the images, all in `store`.
        store: where it goes.
        tools: the tools root that has mksquashfs; None: the host's.
        report: told what is being done.

    Raises:
        UserError: it has to be made and this process is not root.
        WrongDigest: a program or image in the store has changed.
        Unavailable: containerd, ctr or mksquashfs failed.
    """
    if (known := await asyncio.to_thread(recorded_content, artifacts, store=store)) is not None:
        return known
    if os.geteuid() != 0:
        raise UserError(
            f"making containerd's content for {artifacts.kubernetes_version} needs root",
            hint="it mounts layers; run this step with sudo",
        )
    await asyncio.to_thread(_check_inputs, artifacts, store)
    with store.staging() as folder:
        # a socket's path has 107 bytes at most, the cache's may be longer
        with tempfile.TemporaryDirectory(prefix="constellation-") as sockets:
            await _fill(artifacts, folder=folder, sockets=Path(sockets), store=store, report=report)
        report(Progress(step="Images for nodes", detail="packing"))
        pack = ("mksquashfs",) if tools is None else tools_root.command(tools, "mksquashfs")
        squashfs = folder / "content.squashfs"
        await asyncio.to_thread(_keep_only, folder / "root", _PACKED)
        await proc.run(
            *pack, folder / "root", squashfs, *_SQUASHFS, *_SQUASHFS_TIMES,
            timeout_s=_PACK_TIMEOUT_S,
        )  # fmt: skip
        sha256, size_bytes = await asyncio.to_thread(store.put, squashfs, name=NAME, expected=None)
    made = _record(artifacts, store=store, sha256=sha256, size_bytes=size_bytes)
    report(Progress(step="Images for nodes", finished=True))
    return made


def _check_inputs(artifacts: ArtifactList, store: Store) -> None:
    # root is going to run two of these: size and time are not enough here
    used = (artifacts.get("containerd"), artifacts.get("ctr"))
    for artifact in (*used, *artifacts.of_kind(ArtifactKind.IMAGE)):
        found = digest_of(store.path(artifact.sha256))
        if found != artifact.sha256:
            raise WrongDigest(
                artifact.name,
                expected=artifact.sha256,
                found=found,
                hint="check the whole cache: constellation artifacts mirror --check",
            )


def _record(artifacts: ArtifactList, *, store: Store, sha256: str, size_bytes: int) -> Artifact:
    record, path = _Record(sha256=sha256, size_bytes=size_bytes), _record_path(artifacts, store)
    write_atomic(path, decode.dump(record))
    store.give_to_owner(path.parent, path)
    return _artifact(record)


async def _fill(
    artifacts: ArtifactList, *, folder: Path, sockets: Path, store: Store, report: Report
) -> None:
    config, log = folder / "config.toml", folder / "log"
    socket = sockets / "containerd.sock"
    # no CRI plugin: it would want CNI and a runtime; the metadata are the same without it
    config.write_text(
        "version = 3\n"
        f'root = "{folder / "root"}"\nstate = "{sockets / "state"}"\n'
        'disabled_plugins = ["io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", '
        '"io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )
    ctr = (store.path(artifacts.get("ctr").sha256), "-a", socket, "-n", "k8s.io")
    containerd = store.path(artifacts.get("containerd").sha256)
    async with _containerd(containerd, config=config, log=log):
        await _wait_for(ctr, log=log)
        images = artifacts.of_kind(ArtifactKind.IMAGE)
        for done, image in enumerate(images):
            report(
                Progress(
                    step="Images for nodes", detail=image.name, done=done, total=len(images),
                    unit="images",
                )
            )  # fmt: skip
            await proc.run(
                *ctr, "images", "import", "--local", "--snapshotter", "overlayfs",
                "--platform", "linux/amd64", store.path(image.sha256),
                timeout_s=_IMPORT_TIMEOUT_S,
            )  # fmt: skip
            # kubelet's garbage collection leaves pinned images alone (CRI, Image.pinned)
            await proc.run(
                *ctr, "images", "label", image.name, "io.cri-containerd.pinned=pinned",
                "io.cri-containerd.image=managed",
                timeout_s=_IMPORT_TIMEOUT_S,
            )  # fmt: skip
        # collect garbage now (the importer's index files): on a node these files are read-only
        await proc.run(*ctr, "leases", "create", "--id", "last", timeout_s=_IMPORT_TIMEOUT_S)
        await proc.run(*ctr, "leases", "delete", "--sync", "last", timeout_s=_IMPORT_TIMEOUT_S)


def _keep_only(root: Path, names: tuple[str, ...]) -> None:
    for path in root.iterdir():
        if path.name not in names:
            shutil.rmtree(path)


@contextlib.asynccontextmanager
async def _containerd(program: Path, *, config: Path, log: Path) -> AsyncIterator[None]:
    """Run containerd in a mount namespace of its own; its end unmounts what it mounted."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "--propagation", "private",
            # it must not outlive us, whatever ends us
            "setpriv", "--pdeathsig", "KILL",
            str(program), "--config", str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        yield
    finally:
        # SIGTERM: the databases are closed properly
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _wait_for(ctr: tuple[str | Path, ...], *, log: Path) -> None:
    async def answers() -> None:
        await proc.run(*ctr, "version", timeout_s=5.0)

    try:
        await until_available(answers, deadline_s=_START_TIMEOUT_S)
    except Unavailable as error:
        tail = (await asyncio.to_thread(log.read_text, errors="replace"))[-1500:]
        raise Unavailable(f"containerd does not start: {tail}") from error


def _record_path(artifacts: ArtifactList, store: Store) -> Path:
    parts = [f"recipe {_RECIPE}", artifacts.get("containerd").sha256]
    parts += [f"{a.name} {a.sha256}" for a in artifacts.of_kind(ArtifactKind.IMAGE)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return store.cache / "content" / f"{key}.json"


def _artifact(record: _Record) -> Artifact:
    return Artifact(
        name=NAME,
        kind=ArtifactKind.CONTENT,
        sha256=record.sha256,
        size_bytes=record.size_bytes,
    )
