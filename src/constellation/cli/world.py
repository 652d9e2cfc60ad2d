"""How the engine meets the real world: caches, builds, the local cloud, the clock.

`cluster` and `image` do not know each other; here, above both, one is handed to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from constellation.base import clock
from constellation.base.errors import Conflict, Unavailable, UserError
from constellation.base.files import lock
from constellation.base.progress import Progress
from constellation.cli.privilege import is_root, run_as_root
from constellation.cluster.context import Context, NodeImage
from constellation.cluster.kubernetes import list_nodes
from constellation.cluster.steps.prepare import SERVICES_ARTIFACT
from constellation.config.workspace import Workspace, cache_folder
from constellation.providers.local.infrastructure import (
    LocalInfrastructure,
    daemon_command,
    destroy_command,
    workspaces,
)
from constellation.trust.artifact_list import Artifact, ArtifactKind
from constellation.trust.cluster_policy import AcceptedRelease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.cli.clouds import TerraformRun
    from constellation.config.schema import Config
    from constellation.image import build
    from constellation.providers.protocols import Desired, Infrastructure, InfrastructureState
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.release import Release

__all__ = ["LocalCloud", "LocalSupplies", "alone", "ensure_artifacts", "real_context"]

_DAEMON_S = 180.0
_CONTENT_S = 900.0
_DESTROY_S = 120.0
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSupplies:
    """Supplies for clusters on this machine, from the user's cache folder."""

    cache: Path

    async def artifacts(self, config: Config, *, report: Report) -> ArtifactList:
        """Have Kubernetes and the services bundle; see `cluster.context.Supplies`."""
        from constellation.image import build

        listed = await ensure_artifacts(
            config.kubernetes_version,
            cache=self.cache,
            report=report,
            origin=config.provider.this_machine().artifact_source,
        )
        async with alone(self.cache, "image", report=report):
            bundle = await build.ensure_services_bundle(self.cache, report)
        return listed.with_artifacts(await asyncio.to_thread(_keep, bundle, cache=self.cache))

    async def node_image(self, *, report: Report) -> NodeImage:
        """Have the node image; see `cluster.context.Supplies`."""
        from constellation.image import build

        await _tools_root(self.cache, report)
        async with alone(self.cache, "image", report=report):
            image = await build.ensure_node_image(self.cache, report)
        return NodeImage(
            path=image.path,
            release=AcceptedRelease(
                name=image.manifest.version,
                not_before=image.manifest.build_time,
                not_after=None,
                image_digest=bytes.fromhex(image.manifest.sha256),
                reference=dict(image.reference_values),
            ),
            release_root=image.release_public_key,
        )

    async def release_files(
        self, release: Release, config: Config, *, kubernetes: str, report: Report
    ) -> Path:
        """Have a release's node image and artifacts in the cache; see `cluster.context.Supplies`.

        What is missing of Kubernetes and services is built or fetched; what then has another digest
        than the release says is not taken.
        """
        from constellation.image.store import find_image

        if self._missing(release, kubernetes):
            wanted = config.model_copy(update={"kubernetes_version": kubernetes})
            await self.artifacts(wanted, report=report)
        if missing := self._missing(release, kubernetes):
            raise UserError(
                f"release {release.version}: {missing[0]} is not in {self.cache}, and this machine "
                "makes another one",
                hint="`constellation artifacts mirror --release FILE --source URL` fetches the "
                "publisher's files into it",
            )
        image = release.image(provider="local", variant=config.attestation.variant)
        assert image is not None  # noqa: S101 - the rules looked
        path = await asyncio.to_thread(find_image, self.cache, image.sha256)
        if path is None:
            raise UserError(
                f"release {release.version}: its node image (SHA-256 {image.sha256}) is not in "
                f"{self.cache / 'image'}",
                hint="put the publisher's image there, in a folder of its own: image.squashfs",
            )
        return path

    def _missing(self, release: Release, kubernetes: str) -> tuple[str, ...]:
        from constellation.releases.store import Store

        store = Store(self.cache)
        return tuple(
            f"{a.name} (SHA-256 {a.sha256})"
            for a in release.kubernetes[kubernetes].artifacts
            # a cloud's components: nothing on this machine uses them
            if a.kind is not ArtifactKind.OBJECTS
            and not store.has(a.sha256, size_bytes=a.size_bytes)
        )

    async def built(
        self, *, report: Report
    ) -> tuple[build.NodeImage, build.ServicesBundle, Artifact]:
        """Have node image and services bundle; the artifact is the bundle as nodes get it."""
        from constellation.image import build

        await _tools_root(self.cache, report)
        async with alone(self.cache, "image", report=report):
            image = await build.ensure_node_image(self.cache, report)
            bundle = await build.ensure_services_bundle(self.cache, report)
        return image, bundle, await asyncio.to_thread(_keep, bundle, cache=self.cache)


async def ensure_artifacts(
    version: str, *, cache: Path, report: Report, origin: str = "auto"
) -> ArtifactList:
    """Have Kubernetes `version` in the cache; unpacking its images is done as root, once.

    `origin` is "official", "source" or "auto" (`releases.mirror.Origin`).

    Raises:
        UserError: the version is not supported.
        Untrusted: a file is not what the lock says.
        Unavailable: an origin or a build failed; the same call goes on.
    """
    from constellation.releases import lock as locks
    from constellation.releases import mirror

    locks.load().of(version)
    root = await _tools_root(cache, report)
    try:
        return await mirror.ensure(version, origin=origin, cache=cache, report=report, tools=root)
    except UserError:
        if is_root():
            raise
    # all but the unpacked images is there now; those are made as root, once
    helper = (
        sys.executable,
        "-m",
        "constellation.cli.root_content",
        version,
        origin,
        str(cache),
        str(root),
    )
    await run_as_root(helper, timeout_s=_CONTENT_S)
    return await mirror.ensure(version, origin=origin, cache=cache, report=report, tools=root)


async def _tools_root(cache: Path, report: Report) -> Path:
    from constellation.image import tools

    async with alone(cache, "tools", report=report):
        return await tools.ensure_tools_root(cache, report)


@contextlib.asynccontextmanager
async def alone(cache: Path, part: str, *, report: Report) -> AsyncIterator[None]:
    """Hold a part of the cache; waits for another run, or another task of this one, to finish."""
    step, waited = f"Cache: {part}", False
    while True:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(lock(cache / f"{part}.lock", what=step))
            except Conflict:
                report(Progress(step=step, detail="waiting until it is made"))
                waited = True
            else:
                if waited:
                    report(Progress(step=step, finished=True))
                yield
                return
        await asyncio.sleep(_PAUSE_S)


def _keep(bundle: build.ServicesBundle, *, cache: Path) -> Artifact:
    """Put the services bundle where nodes get artifacts from."""
    from constellation.releases.store import Store

    store, manifest = Store(cache), bundle.manifest
    if not store.has(manifest.sha256, size_bytes=manifest.size_bytes):
        with store.staging() as folder:
            copy = folder / SERVICES_ARTIFACT
            shutil.copyfile(bundle.path, copy)
            store.put(copy, name=SERVICES_ARTIFACT, expected=manifest.sha256)
    return Artifact(
        name=SERVICES_ARTIFACT,
        kind=ArtifactKind.ARCHIVE,
        sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
    )


class LocalCloud:
    """The local provider together with its daemon, which root starts when machines are wanted."""

    def __init__(self, uid: str, *, cache: Path, folder: Path, offline: bool) -> None:
        self._uid, self._cache, self._folder = uid, cache, folder
        self._inner = LocalInfrastructure(uid, offline=offline)

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        """Start the daemon if it does not run, then create what is missing."""
        await self.start(report=report)
        return await self._inner.apply(desired, report=report)

    async def start(self, *, report: Report) -> None:
        """Start the daemon, or find it running."""
        report(Progress(step="Local cloud", detail="starting its daemon"))
        root = await _tools_root(self._cache, report)
        start = daemon_command(self._uid, tools_root=root, workspace=self._folder)
        await run_as_root(start, timeout_s=_DAEMON_S)
        report(Progress(step="Local cloud", finished=True))

    async def observe(self) -> InfrastructureState | None:
        """Say what exists; None where no daemon runs."""
        return await self._inner.observe()

    async def destroy(self, *, report: Report) -> None:
        """Remove everything, through the daemon or, where it does not answer, without it."""
        try:
            await self._inner.destroy(report=report)
        except Unavailable as error:
            report(Progress(step="Local cloud", detail=f"without its daemon: {error}"))
        await run_as_root(destroy_command(self._uid), timeout_s=_DESTROY_S)

    async def console(self, instance_id: str) -> bytes:
        """Give the end of a machine's console."""
        return await self._inner.console(instance_id)


def real_context(
    workspace: Workspace,
    config: Config,
    *,
    report: Report,
    wait_s: float = 300.0,
    abandon: bool = False,
    terraform: TerraformRun | None = None,
) -> Context:
    """Give the context of a run: on this machine, or on the cloud that the configuration names.

    `terraform` is needed by commands that may change a cloud's resources.
    """
    cache, folder = cache_folder(), workspace.folder.resolve()
    if config.provider.baremetal is not None:
        from constellation.cli.baremetal import baremetal_context

        return baremetal_context(
            workspace, config, cache=cache, report=report, wait_s=wait_s, abandon=abandon
        )
    if (local := config.provider.local) is None:
        from constellation.cli.clouds import cloud_context

        return cloud_context(
            workspace, config, cache=cache, report=report, wait_s=wait_s, abandon=abandon,
            terraform=terraform,
        )  # fmt: skip
    offline = local.offline

    def infrastructure(uid: str) -> Infrastructure:
        return LocalCloud(uid, cache=cache, folder=folder, offline=offline)

    return Context(
        workspace=workspace,
        config=config,
        supplies=LocalSupplies(cache=cache),
        infrastructure=infrastructure,
        owned=lambda: tuple(uid for uid, place in workspaces().items() if place == folder),
        list_nodes=list_nodes,
        now=clock.now,
        report=report,
        wait_s=wait_s,
        abandon=abandon,
    )
