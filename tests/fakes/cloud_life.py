"""A cluster's life on a fake cloud: real Terraform, real clients, real attested TLS, fake chips.

Terraform's module is applied to a provider in this process, which tells the fake cloud to have the
machines; the workstation lists them by the cloud's API; a node gets its document from the cloud's
metadata service by the client that it really has, measures it, and attests as that cloud's machines
do. What is made up: chips, vTPMs, Kubernetes, and where the load balancer leads to.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from constellation.attestation.model import Variant
from constellation.attestation.node_rules import ChipMinimum, PlatformDemands
from constellation.attestation.snp import Line
from constellation.attestation.tdx.appraise import STRICT_STATUSES
from constellation.base.secret import Secret
from constellation.cli.clouds import node_access_of
from constellation.cluster.context import Context
from constellation.config.cloud_settings import (
    aws_settings,
    azure_settings,
    gcp_settings,
    openstack_settings,
)
from constellation.config.clouds_yaml import parse_login
from constellation.config.workspace import Workspace
from constellation.providers.aws.cloud import AwsCloud
from constellation.providers.aws.credentials import WorkstationCredentials
from constellation.providers.aws.metadata import AwsMetadata
from constellation.providers.azure.cloud import AzureCloud
from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.gcp.cloud import GcpCloud
from constellation.providers.gcp.credentials import WorkstationToken
from constellation.providers.gcp.metadata import GcpMetadata
from constellation.providers.openstack.cloud import OpenStackCloud, OpenStackInfrastructure
from constellation.providers.openstack.metadata import MetadataService, OpenStackMetadata
from constellation.providers.protocols import Role
from constellation.providers.select import check_access
from constellation.providers.terraform.infrastructure import TerraformInfrastructure
from constellation.providers.terraform.run import TerraformSettings
from constellation.releases.export import export
from constellation.releases.store import Store
from constellation.trust import artifact_list
from tests.fakes.amd import AmdWorld
from tests.fakes.arm import FakeAzure, ScaleSet
from tests.fakes.aws_query import FakeAws
from tests.fakes.cloud_confs import clouds_yaml, conf
from tests.fakes.cloud_node import CloudNode
from tests.fakes.clouds import MEASUREMENT, NOW, Machine
from tests.fakes.file_servers import FileServer, door_to, file_server
from tests.fakes.gce import FakeGce
from tests.fakes.machine_shelf import MachineShelf, one_of_each
from tests.fakes.openstack import FakeOpenStack, Server
from tests.fakes.owner_world import serving
from tests.fakes.terraform.provider import Provider
from tests.fakes.terraform.schemas import schemas
from tests.fakes.terraform.workbench import INFRA, served, types_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from constellation.base.progress import Progress, Report
    from constellation.config.schema import Config
    from constellation.config.state import State
    from constellation.providers.protocols import (
        Desired,
        Infrastructure,
        InfrastructureState,
        Metadata,
    )
    from tests.fakes.terraform.provider import Resource

__all__ = ["CloudLife", "cloud_life"]

DEMANDS = PlatformDemands(
    chips=(ChipMinimum(line=Line.MILAN, tcb=AmdWorld().chip().tcb),),
    chip_roots=AmdWorld(key_name="ark 1").roots,
    tdx_statuses=STRICT_STATUSES,
    minimum_tcb_evaluation=1,
    project_ids=("project",),
    csp_ids=("CN=cloud.example",),
)
VARIANTS = {
    "aws": Variant.AWS_SEV_SNP,
    "azure": Variant.AZURE_SEV_SNP,
    "gcp": Variant.GCP_SEV_SNP,
    "openstack": Variant.QEMU_VTPM,
}


@dataclass(kw_only=True)
class CloudLife:
    """One cloud with a workspace before it. `first` is the control plane, `second` a worker."""

    config: Config
    workspace: Workspace
    fake: Any
    provider: Provider
    first: CloudNode
    second: CloudNode
    made: Callable[[str], Infrastructure]
    metadata: Callable[[str], Metadata]
    ports: tuple[int, int]
    files: FileServer
    progress: list[Progress] = field(default_factory=list)

    def context(self) -> Context:
        return Context(
            workspace=self.workspace,
            config=self.config,
            supplies=MachineShelf(
                cache=self.workspace.folder / "cache",
                machine=self.first.machine,
                image=getattr(self.config.provider, self.config.provider.name).image,
                launch=_launch(self.first.machine),
            ),
            infrastructure=lambda uid: _Reached(life=self, inner=self.made(uid)),
            node_access=node_access_of(self.config, self.made),
            owned=tuple,
            list_nodes=one_of_each("10.42.1.10"),
            now=lambda: NOW,
            report=self.progress.append,
            wait_s=2.0,
            door=door_to(),
        )

    async def publish(self, state: State) -> None:
        """Serve what nodes need, as `artifacts mirror --to` writes it; the cache is emptied."""
        cache = self.workspace.folder / "cache"
        listed = artifact_list.parse(state.artifact_list).artifacts
        assert self.files.folder is not None
        await export(
            listed, store=Store(cache), folder=self.files.folder, report=self.progress.append
        )
        for path in (cache / "sha256").iterdir():
            path.unlink()

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The authorities of the cloud's machines: each of the two was made with its own."""
        found: set[bytes] = set()
        for node in (self.first, self.second):
            found |= set(node.machine.verifier.trust_roots)  # type: ignore[attr-defined] # a fake's
        return tuple(sorted(found))

    def instance_of(self, role: Role) -> str:
        """Name the machine of a role, as the cloud does."""
        if isinstance(self.fake, FakeAws):
            return next(m.instance_id for m in self.fake.machines.values() if m.role == role)
        if isinstance(self.fake, FakeAzure):
            return next(f"{n}_0" for n, s in self.fake.sets.items() if s.role == role)
        if isinstance(self.fake, FakeGce):
            return next(vm.name for vm in self.fake.vms.values() if vm.role == role)
        servers: dict[str, Server] = self.fake.servers
        return next(i for i, s in servers.items() if s.metadata["constellation-role"] == role)

    def keep_access(self, folder: Path) -> None:
        """Put on the control plane's disk what the owner gave it for the cloud's API, if any."""
        if self.first.access:
            check_access(self.config.provider.name, Secret(self.first.access))
            (folder / "access.json").write_bytes(self.first.access)

    @property
    def exists(self) -> bool:
        """Whether the cloud has machines, or Terraform resources."""
        return bool(self.provider.resources) or bool(_machines(self.fake))


def _launch(machine: Machine) -> dict[str, tuple[bytes, ...]]:
    return {"measurement": (MEASUREMENT,)} if machine.variant.endswith("sev-snp") else {}


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """The cloud's infrastructure, with the load balancer's ports where the test's node listens.

    The authorities are the fake cloud's own, in place of the vendors'.
    """

    life: CloudLife
    inner: Infrastructure

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        state = await self.inner.apply(desired, report=report)
        for node, role in ((self.life.first, Role.CONTROL_PLANE), (self.life.second, Role.WORKER)):
            if node.document:
                continue
            (instance,) = (i for i in state.instances if i.role is role)
            # as the disk mapper: the document comes from the cloud, by the real client
            await node.power_on(await self.life.metadata(instance.instance_id).user_data())
        return self._with_ports(state)

    async def observe(self) -> InfrastructureState | None:
        state = await self.inner.observe()
        return None if state is None else self._with_ports(state)

    async def destroy(self, *, report: Report) -> None:
        await self.inner.destroy(report=report)

    async def console(self, instance_id: str) -> bytes:
        return await self.inner.console(instance_id)

    def _with_ports(self, state: InfrastructureState) -> InfrastructureState:
        init, verify = self.life.ports
        instances = tuple(
            dataclasses.replace(
                i, init_endpoint=f"127.0.0.1:{init}", verify_endpoint=f"127.0.0.1:{verify}"
            )
            for i in state.instances
            if i.role is Role.CONTROL_PLANE
        )
        return dataclasses.replace(state, instances=instances, trust_roots=self.life.roots)


@contextlib.asynccontextmanager
async def cloud_life(
    provider: str, folder: Path, *, environment: Callable[[str, str], None]
) -> AsyncIterator[CloudLife]:
    """Make a cloud without machines; `environment` sets a variable for Terraform."""
    fake = {"aws": FakeAws, "azure": FakeAzure, "gcp": FakeGce, "openstack": FakeOpenStack}[
        provider
    ]()
    _empty(fake)
    served_provider = Provider(schema=schemas(provider, types_of(INFRA / provider)))
    change = _change_aws if provider == "aws" else _change
    served_provider.on_change = lambda action, resource: change(fake, action, resource)
    first = CloudNode.of(Machine.make(VARIANTS[provider]))
    second = CloudNode.of(Machine.make(VARIANTS[provider]))
    async with (
        fake.serving(),
        served(provider, served_provider) as variables,
        serving(first) as ports,
        file_server() as files,
    ):
        files.folder = folder / "www"
        for name, node in (("first", first), ("second", second)):
            node.fetches = folder / name
        for name, value in variables.items():
            environment(name, value)
        workspace = Workspace(folder=folder / "workspace")
        clouds_yaml(workspace.folder, auth_url=f"{getattr(fake, 'auth_url', '')}")
        config = conf(provider, sources=(files.url,))
        yield CloudLife(
            config=config,
            workspace=workspace,
            fake=fake,
            provider=served_provider,
            first=first,
            second=second,
            made=lambda uid: _infrastructure(fake, config, workspace, uid),
            metadata=lambda instance_id: _metadata(fake, instance_id, folder),
            ports=ports,
            files=files,
        )


def _infrastructure(fake: Any, config: Config, workspace: Workspace, uid: str) -> Infrastructure:
    provider, variant = config.provider, config.attestation.variant
    cloud: Any
    if provider.aws is not None:
        cloud = AwsCloud(
            settings=aws_settings(provider.aws, variant=variant),
            source=WorkstationCredentials(environment=fake.environment()),
            endpoint=f"{fake.url}/",
        )
    elif provider.azure is not None:
        cloud = AzureCloud(
            azure_settings(provider.azure, variant=variant),
            signer=WorkstationToken(environment={"GOOGLE_OAUTH_ACCESS_TOKEN": "eyJ0.1"}),
            arm_url=fake.arm.url,
        )
    elif provider.gcp is not None:
        cloud = GcpCloud(
            settings=gcp_settings(provider.gcp, variant=variant),
            signer=WorkstationToken(environment={"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.1"}),
            compute_url=fake.compute_url,
            manager_url=fake.manager_url,
        )
    else:
        assert provider.openstack is not None
        fake.uid = uid
        mine, theirs = (
            parse_login(workspace.folder / "clouds.yaml", cloud=name, region="")
            for name in ("mine", "theirs")
        )
        settings = openstack_settings(provider.openstack, variant=variant)
        cloud = OpenStackCloud(settings, mine, control_planes=theirs, pause_s=0.001, drain_s=0.001)
    inner = TerraformInfrastructure(
        cloud,
        uid,
        folder=workspace.terraform,
        program="",
        settings=TerraformSettings(),
        confirm=lambda _: None,
        lead_init=cloud.lead_init if isinstance(cloud, AwsCloud) else None,
    )
    if isinstance(cloud, OpenStackCloud):
        return OpenStackInfrastructure(inner, cloud, uid)
    return inner


def _metadata(fake: Any, instance_id: str, folder: Path) -> Metadata:
    """Give what a machine of the cloud sees; the services answer for one machine at a time."""
    fake.me = instance_id
    if isinstance(fake, FakeAws):
        return AwsMetadata(url=fake.url, endpoint=f"{fake.url}/")
    if isinstance(fake, FakeAzure):
        return AzureMetadata(imds_url=fake.imds.url, arm_url=fake.arm.url)
    if isinstance(fake, FakeGce):
        return GcpMetadata(metadata_url=fake.metadata_url, compute_url=fake.compute_url)
    source = MetadataService(url=fake.metadata.url)
    fake.user_data = fake.servers[instance_id].user_data
    return OpenStackMetadata(source=source, access=folder / "access.json")


def _machines(fake: Any) -> list[str]:
    if isinstance(fake, FakeAws):
        return [i for i, m in fake.machines.items() if m.state == "running"]
    if isinstance(fake, FakeAzure):
        return [n for s in fake.sets.values() for n in s.vms]
    return list(fake.vms if isinstance(fake, FakeGce) else fake.servers)


def _empty(fake: Any) -> None:
    if isinstance(fake, FakeAws):
        fake.machines.clear()
    elif isinstance(fake, FakeAzure):
        fake.sets.clear()
    elif isinstance(fake, FakeGce):
        fake.vms.clear()
        fake.managers.clear()
    else:
        fake.servers.clear()
        fake.ports.clear()
        fake.members.clear()


def _change(fake: Any, action: str, resource: Resource) -> None:
    """Let the cloud do what the provider's program would have told it."""
    values, kind = resource.values, resource.kind
    match kind, action:
        case "google_compute_instance_template", "create":
            fake.user_data = values["metadata"]["user-data"].encode()
            fake.uid = values["metadata"]["constellation-uid"]
            fake.roles[values["metadata"]["constellation-node-group"]] = values["metadata"][
                "constellation-role"
            ]
        case "google_compute_region_instance_group_manager", "create":
            group = next(g for g in fake.roles if values["name"].endswith(g.replace("_", "-")))
            fake.managers[values["name"]] = (group, fake.roles[group])
            for number in range(values["target_size"]):
                fake.add(group, f"{number:04x}")
        case "google_compute_region_instance_group_manager", "delete":
            for name in [n for n, vm in fake.vms.items() if vm.manager == values["name"]]:
                del fake.vms[name]
        case "azurerm_linux_virtual_machine_scale_set", "create":
            fake.user_data = base64.b64decode(values["user_data"])
            tags = values["tags"]
            fake.sets[values["name"]] = ScaleSet(
                group=tags["constellation-node-group"],
                role=tags["constellation-role"],
                uid=tags["constellation-uid"],
            )
            for _ in range(values["instances"]):
                fake.add(values["name"])
        case "azurerm_linux_virtual_machine_scale_set", "delete":
            del fake.sets[values["name"]]
        case "openstack_lb_pool_v2", "create":
            name = values["name"].rpartition("-")[2]
            ports = {"api": 6443, "init": 9000, "recovery": 9999, "verify": 30081, "policy": 30091}
            fake.pools[values["id"]] = ports[name]
        case _:
            pass


def _change_aws(fake: Any, action: str, resource: Resource) -> None:
    values = resource.values
    match resource.kind, action:
        case "aws_launch_template", "create":
            fake.user_data = base64.b64decode(values["user_data"])
        case "aws_autoscaling_group", "create":
            marks = {tag["key"]: tag["value"] for tag in values["tag"]}
            for _ in range(int(values["desired_capacity"])):
                fake.add(
                    len(fake.machines) + 1,
                    marks["constellation-node-group"],
                    marks["constellation-role"],
                    uid=marks["constellation-uid"],
                )
        case "aws_autoscaling_group", "delete":
            marks = {tag["key"]: tag["value"] for tag in values["tag"]}
            for machine in fake.machines.values():
                if machine.group == marks["constellation-node-group"]:
                    machine.state = "terminated"
        case _:
            pass
