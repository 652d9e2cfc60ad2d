"""Where a node of each cloud asks for certificates: its signed list, then what the cloud lists."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from constellation.base.errors import FormatError
from constellation.providers.aws.metadata import AwsMetadata
from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.baremetal.hosts import HOSTS_FILE, Host, Hosts, dump_hosts
from constellation.providers.baremetal.metadata import BaremetalMetadata
from constellation.providers.gcp.metadata import GcpMetadata
from constellation.providers.local.metadata import LocalMetadata
from constellation.providers.openstack.access import dump_access
from constellation.providers.openstack.metadata import MetadataService, OpenStackMetadata
from constellation.providers.protocols import Role
from constellation.services.mesh.servers import KnownServers, known_servers
from tests.fakes.arm import FakeAzure
from tests.fakes.aws_query import FakeAws
from tests.fakes.gce import FakeGce
from tests.fakes.members import CLUSTER_ID, founded, node_record
from tests.fakes.openstack import FakeOpenStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.providers.protocols import Metadata

PLANES, WORKERS = "control_plane_default", "worker_default"
KINDS = {
    "local": LocalMetadata,
    "aws": AwsMetadata,
    "azure": AzureMetadata,
    "gcp": GcpMetadata,
    "openstack": OpenStackMetadata,
    "baremetal": BaremetalMetadata,
}


@contextlib.asynccontextmanager
async def on(cloud: str, folder: Path) -> AsyncIterator[tuple[Metadata, list[str]]]:
    """Run two control planes and a worker; gives what one of them sees, and the two addresses."""
    async with contextlib.AsyncExitStack() as stack:
        fake: Any
        if cloud == "aws":
            fake = FakeAws()
            made = [fake.add(n, PLANES, "control-plane") for n in (1, 2)]
            fake.add(3, WORKERS, "worker")
            fake.me = made[0].instance_id
            await stack.enter_async_context(fake.serving())
            metadata: Metadata = AwsMetadata(url=fake.url, endpoint=f"{fake.url}/")
            yield metadata, [m.address for m in made]
        elif cloud == "azure":
            fake = await stack.enter_async_context(FakeAzure().serving())
            first = fake.me.rpartition("_")[0]
            fake.add(first)
            metadata = AzureMetadata(imds_url=fake.imds.url, arm_url=fake.arm.url)
            yield metadata, [vm.address for vm in fake.sets[first].vms.values()]
        elif cloud == "gcp":
            fake = await stack.enter_async_context(FakeGce().serving())
            second = fake.add(PLANES, "0002")
            metadata = GcpMetadata(metadata_url=fake.metadata_url, compute_url=fake.compute_url)
            yield metadata, [fake.vms[fake.me].address, second.address]
        elif cloud == "openstack":
            fake = await stack.enter_async_context(FakeOpenStack().serving())
            second = fake.add(PLANES, "control-plane")
            (folder / "access.json").write_bytes(dump_access(fake.access()).reveal())
            source = MetadataService(url=fake.metadata.url)
            metadata = OpenStackMetadata(source=source, access=folder / "access.json")
            yield metadata, [fake.servers[fake.me].address, second.address]
        else:
            hosts = [
                Host(name=f"host-192-0-2-{n}", group=group, role=role, address=f"192.0.2.{n}")
                for n, (group, role) in enumerate(
                    ((PLANES, Role.CONTROL_PLANE),) * 2 + ((WORKERS, Role.WORKER),), start=1
                )
            ]
            listed = Hosts(uid="constell-0a1b2c", me="host-192-0-2-1", hosts=tuple(hosts))
            (folder / HOSTS_FILE).write_bytes(dump_hosts(listed))
            yield BaremetalMetadata(folders=(folder,)), ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp", "openstack", "baremetal"])
async def test_a_node_asks_whom_its_list_names_and_then_whom_its_cloud_lists(
    cloud: str, tmp_path: Path
) -> None:
    async with on(cloud, tmp_path) as (metadata, planes):
        own, other = planes
        asked = KnownServers(lambda: (own,), metadata=metadata, own_address=own, within_s=60)
        assert await asked() == (own, other)
        # of the list the others come first, and nobody twice
        asked = KnownServers(lambda: (own, other), metadata=metadata, own_address=own, within_s=60)
        assert await asked() == (other, own)
        worker = KnownServers(
            lambda: (other,), metadata=metadata, own_address="10.42.9.9", within_s=60
        )
        assert sorted(await worker()) == sorted(planes)


@pytest.mark.parametrize("cloud", ["aws", "gcp", "openstack"])
async def test_where_the_cloud_does_not_answer_the_list_is_left(cloud: str, tmp_path: Path) -> None:
    async with on(cloud, tmp_path) as (metadata, planes):
        pass  # nobody serves any more
    asked = KnownServers(lambda: planes, metadata=metadata, own_address="", within_s=0.5)
    async with asyncio.timeout(5):
        assert await asked() == tuple(planes)


@pytest.mark.parametrize("provider", KINDS)
def test_a_node_asks_the_provider_that_its_record_names(provider: str) -> None:
    member = next(iter(founded().nodes))
    record = node_record(member, cluster_id=CLUSTER_ID, provider=provider)
    assert isinstance(known_servers(record, tuple).metadata, KINDS[provider])
    with pytest.raises(FormatError, match=r"constellation\.provider is 'elsewhere'"):
        known_servers(dataclasses.replace(record, provider="elsewhere"), tuple)
