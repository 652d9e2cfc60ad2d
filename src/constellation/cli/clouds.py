"""How the engine meets a cloud: its API, Terraform in the workspace's folder, a published release.

On a cloud nothing is built here: node image, reference values and Kubernetes come from a signed
release of the repository that the configuration names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Root

from constellation.base import clock
from constellation.base.errors import Conflict, UserError
from constellation.cluster.context import Context, NodeImage
from constellation.cluster.kubernetes import list_nodes
from constellation.config.cloud_settings import (
    aws_settings,
    azure_settings,
    gcp_settings,
    openstack_settings,
)
from constellation.config.clouds_yaml import find_clouds_yaml, parse_login
from constellation.config.providers.catalogues import ProviderName
from constellation.config.trust_roots import read_trust_roots
from constellation.providers.aws.cloud import AwsCloud
from constellation.providers.azure.cloud import AzureCloud
from constellation.providers.gcp.cloud import GcpCloud
from constellation.providers.openstack.cloud import OpenStackCloud, OpenStackInfrastructure
from constellation.providers.terraform.folder import Folder
from constellation.providers.terraform.identities import Identities
from constellation.providers.terraform.infrastructure import TerraformInfrastructure
from constellation.providers.terraform.run import TerraformSettings
from constellation.releases.site import Site, fetch_chain
from constellation.trust.cluster_policy import AcceptedRelease
from constellation.trust.release import is_development
from constellation.trust.release_chain import NOTHING_SEEN, role_keys, verify_chain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from constellation.base.progress import Report
    from constellation.base.secret import Secret
    from constellation.config.schema import Config
    from constellation.config.workspace import Workspace
    from constellation.providers.protocols import Desired, Infrastructure
    from constellation.providers.terraform.infrastructure import Cloud
    from constellation.providers.terraform.run import Plan
    from constellation.trust.artifact_list import ArtifactList
    from constellation.trust.release import Release
    from constellation.trust.release_chain import VerifiedRelease

__all__ = [
    "CLOUDS",
    "CloudSupplies",
    "TerraformRun",
    "ask_room",
    "cloud_context",
    "cloud_of",
    "iam_variables",
    "identities_of",
    "infrastructure_of",
    "made_here",
    "nobody_asked",
    "node_access_of",
    "resource_changes",
    "terraform_of",
]

CLOUDS = (ProviderName.AWS, ProviderName.AZURE, ProviderName.GCP, ProviderName.OPENSTACK)
"""Providers whose machines Terraform makes."""

_MAX_ROOT_BYTES = 64 * 1024


def cloud_of(config: Config, *, folder: Path) -> Cloud:
    """Give the cloud that the configuration names; files that it names lie in `folder`.

    Raises:
        Conflict: this build cannot make machines there.
    """
    provider = config.provider
    if provider.aws is not None:
        settings = aws_settings(provider.aws, variant=config.attestation.variant)
        # the name that AWS' own tools and Terraform read for another server
        return AwsCloud(settings=settings, endpoint=os.environ.get("AWS_ENDPOINT_URL", ""))
    variant = config.attestation.variant
    if provider.azure is not None:
        return AzureCloud(azure_settings(provider.azure, variant=variant))
    if provider.gcp is not None:
        return GcpCloud(settings=gcp_settings(provider.gcp, variant=variant))
    if (block := provider.openstack) is not None:
        path = find_clouds_yaml(block.clouds_yaml, folder=folder)
        login = parse_login(path, cloud=block.cloud, region=block.region)
        theirs, components = (
            parse_login(path, cloud=own, region=block.region) if own else None
            for own in (block.control_planes_cloud, block.components_cloud)
        )
        settings_ = openstack_settings(block, variant=variant)
        return OpenStackCloud(settings_, login, control_planes=theirs, components=components)
    raise Conflict(f"this build does not make machines on {provider.name}")


def terraform_of(workspace: Workspace, config: Config, *, log: str) -> TerraformSettings:
    """Give how Terraform is run; `log` "" writes none, else it is the level of terraform.log."""
    wanted = getattr(config.provider, config.provider.name).terraform

    def path(text: str) -> Path | None:
        return workspace.folder / text if text else None

    return TerraformSettings(
        plugin_folder=path(wanted.plugin_folder),
        backend=wanted.backend,
        backend_config=path(wanted.backend_config),
        log=workspace.folder / "terraform.log" if log else None,
        log_level=log or "DEBUG",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TerraformRun:
    """How a command lets Terraform change things: whom to ask about a plan, what to log.

    `confirm` raises UserError if the answer is no; `log` "" writes none, else it is the level of
    terraform.log.
    """

    confirm: Callable[[Plan], None]
    log: str


def nobody_asked(plan: Plan) -> None:
    """Refuse every change: this command only looks. Raises UserError."""
    raise UserError(f"{plan.summary()}: this command changes no resources")


_ONLY_LOOKS = TerraformRun(confirm=nobody_asked, log="")


def cloud_context(
    workspace: Workspace,
    config: Config,
    *,
    cache: Path,
    report: Report,
    wait_s: float,
    abandon: bool,
    terraform: TerraformRun | None,
) -> Context:
    """Give the context of a run on a cloud."""
    make = infrastructure_of(workspace, config, run=terraform or _ONLY_LOOKS)
    return Context(
        workspace=workspace,
        config=config,
        supplies=CloudSupplies(cache=cache, workspace=workspace, config=config),
        infrastructure=make,
        node_access=node_access_of(config, make),
        ask_room=partial(ask_room, make, report=report),
        resources=partial(resource_changes, make, report=report),
        owned=lambda: made_here(workspace),
        list_nodes=list_nodes,
        now=clock.now,
        report=report,
        wait_s=wait_s,
        abandon=abandon,
    )


async def resource_changes(
    make: Callable[[str], Infrastructure], uid: str, desired: Desired, *, report: Report
) -> tuple[str, ...]:
    """Say what Terraform would change, a line for each resource; nothing is changed."""
    infrastructure = make(uid)
    assert isinstance(infrastructure, TerraformInfrastructure | OpenStackInfrastructure)  # noqa: S101 - a cloud's
    plan = await infrastructure.plan(desired, report=report)
    return tuple(f"{change.action} {change.address}" for change in plan.changes)


async def ask_room(
    make: Callable[[str], Infrastructure], uid: str, desired: Desired, *, report: Report
) -> None:
    """Refuse if the cloud has no room for groups of these sizes; see `cluster.context`."""
    infrastructure = make(uid)
    assert isinstance(infrastructure, TerraformInfrastructure | OpenStackInfrastructure)  # noqa: S101 - a cloud's
    await infrastructure.ask_room(desired, report=report)


def node_access_of(
    config: Config, make: Callable[[str], Infrastructure]
) -> Callable[[str, Desired], Awaitable[Secret]] | None:
    """Give what makes the control planes' access, None where machines have identities."""
    if config.provider.openstack is None:
        return None

    async def access(uid: str, desired: Desired) -> Secret:
        infrastructure = make(uid)
        assert isinstance(infrastructure, OpenStackInfrastructure)  # noqa: S101 - of this provider
        return await infrastructure.node_access(desired)

    return access


def infrastructure_of(
    workspace: Workspace, config: Config, *, run: TerraformRun
) -> Callable[[str], Infrastructure]:
    """Give what makes the infrastructure of a uid."""
    cloud = cloud_of(config, folder=workspace.folder)
    block = getattr(config.provider, config.provider.name)

    def make(uid: str) -> Infrastructure:
        inner = TerraformInfrastructure(
            cloud,
            uid,
            folder=workspace.terraform,
            program=block.terraform.program,
            settings=terraform_of(workspace, config, log=run.log),
            confirm=run.confirm,
            direct=block.access.internal,
            lead_init=cloud.lead_init if isinstance(cloud, AwsCloud) else None,
        )
        if isinstance(cloud, OpenStackCloud):
            roots = read_trust_roots(workspace.folder, block.trust_roots)
            return OpenStackInfrastructure(inner, cloud, uid, trust_roots=roots)
        return inner

    return make


def iam_variables(config: Config) -> dict[str, object]:
    """Give the variables of the provider's module of identities.

    Raises:
        Conflict: the provider has none.
    """
    provider = config.provider
    if provider.aws is not None:
        aws = provider.aws
        return {
            "name": config.name,
            "region": aws.region,
            "tags": dict(aws.tags),
            "cloud_integration": aws.cloud_integration,
        }
    if (azure := provider.azure) is not None:
        return {
            "name": config.name,
            "subscription": azure.subscription,
            "region": azure.location,
            "resource_group": azure.resource_group,
            "cloud_integration": azure.cloud_integration,
        }
    if (gcp := provider.gcp) is not None:
        return {
            "name": config.name,
            "project": gcp.project,
            "cloud_integration": gcp.cloud_integration,
        }
    raise Conflict(f"{provider.name} has no identities that this build makes")


def identities_of(
    workspace: Workspace, config: Config, *, confirm: Callable[[Plan], None]
) -> Identities:
    """Give what makes and removes the identities of the conf's nodes.

    Raises:
        Conflict: the provider has none.
    """
    iam_variables(config)
    block = getattr(config.provider, config.provider.name)
    return Identities(
        config.provider.name,
        config.name,
        folder=workspace.terraform_iam,
        program=block.terraform.program,
        settings=terraform_of(workspace, config, log=""),
        confirm=confirm,
    )


def made_here(workspace: Workspace) -> tuple[str, ...]:
    """Name the clusters that were made from this workspace, by Terraform's folder."""
    with contextlib.suppress(UserError):
        mark = Folder(path=workspace.terraform).mark()
        return (mark.uid,) if mark is not None else ()
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSupplies:
    """Supplies from a signed release; see `cluster.context.Supplies`."""

    cache: Path
    workspace: Workspace
    config: Config

    async def artifacts(self, config: Config, *, report: Report) -> ArtifactList:
        """Give the list of the wanted Kubernetes version; the nodes fetch the files themselves."""
        del report
        verified = await self._release()
        listed = verified.release.kubernetes.get(config.kubernetes_version)
        if listed is None:
            raise UserError(
                f"release {verified.release.version} has no Kubernetes "
                f"{config.kubernetes_version}, only {', '.join(verified.release.kubernetes)}",
                where="kubernetesVersion",
            )
        return listed

    async def node_image(self, *, report: Report) -> NodeImage:
        """Give the release's image for provider and variant, under its name in the cloud."""
        del report
        verified, config = await self._release(), self.config
        image = verified.release.image(
            provider=config.provider.name, variant=config.attestation.variant
        )
        if image is None or not image.reference:
            raise UserError(
                f"release {verified.release.version} has no image with reference values for "
                f"{config.provider.name}, {config.attestation.variant}",
                where="release",
            )
        # hosts of one's own boot the image that their owner gives them
        name = getattr(getattr(config.provider, config.provider.name), "image", image.name)
        if not name:
            raise UserError(
                f"which image? The release's is {image.name} (SHA-256 {image.sha256})",
                where=f"provider.{config.provider.name}.image",
                hint="import it into your account, and name it here",
            )
        values, now = image.reference, int(clock.now().timestamp())
        valid = [v for v in values if v.not_before <= now < (v.not_after or now + 1)]
        if not valid:
            raise UserError(f"release {verified.release.version}: its reference values are over")
        return NodeImage(
            path=Path(name),
            release=AcceptedRelease(
                name=verified.release.version,
                not_before=valid[0].not_before,
                not_after=valid[0].not_after,
                image_digest=bytes.fromhex(image.sha256),
                reference={n: _bytes(v) for n, v in valid[0].registers.items()},
                launch={n: _bytes(v) for n, v in valid[0].launch.items()},
            ),
            release_root=self._release_key(),
        )

    async def release_files(
        self, release: Release, config: Config, *, kubernetes: str, report: Report
    ) -> Path:
        """Give the image that the configuration names; nodes fetch Kubernetes themselves."""
        if config.release != release.version or kubernetes not in release.kubernetes:
            raise UserError(f"name release {release.version} and its image", where="release")
        return (await self.node_image(report=report)).path

    def _release_key(self) -> bytes:
        """Give the key (DER) that signs releases, by the root that the user trusts."""
        root = Metadata[Root].from_bytes(self._pinned_root())
        return role_keys(root.signed, "targets")[0]

    def _pinned_root(self) -> bytes:
        path = self.workspace.folder / self.config.releases.root
        try:
            return path.read_bytes()[:_MAX_ROOT_BYTES]
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None

    async def _release(self) -> VerifiedRelease:
        wanted, conf = self.config.releases, self.workspace.config.name
        if not wanted.repository or not wanted.root:
            raise UserError(
                f"a cluster on {self.config.provider.name} follows published releases",
                where=f"{conf}: releases",
                hint="name the publisher's repository and root metadata: releases.repository and "
                "releases.root (docs/how-to/publish-a-release.md makes one's own)",
            )
        pinned = await asyncio.to_thread(self._pinned_root)
        place = wanted.repository
        if "://" not in place:
            place = str(self.workspace.folder / place)
        version = self.config.release or None
        chain = await fetch_chain(Site(place=place), pinned_root=pinned, version=version)
        verified = verify_chain(chain, pinned_root=pinned, seen=NOTHING_SEEN, now=clock.now())
        if is_development(verified.release.version):
            raise UserError(
                f"release {verified.release.version} was made for development: no cloud takes it"
            )
        return verified


def _bytes(values: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(sorted(bytes.fromhex(value) for value in values))
