"""ProviderIDs and labels of nodes, as each cloud's own components know them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from constellation.base.errors import FormatError
from constellation.providers.aws.metadata import AwsMetadata
from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.gcp.metadata import GcpMetadata
from constellation.providers.openstack.metadata import MetadataService, OpenStackMetadata
from constellation.providers.placement import Placement
from constellation.providers.select import placed
from tests.fakes.arm import FakeAzure
from tests.fakes.aws_query import FakeAws
from tests.fakes.gce import FakeGce
from tests.fakes.openstack import FakeOpenStack

REGION, ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
TYPE = "node.kubernetes.io/instance-type"


async def test_a_machine_of_aws() -> None:
    aws = FakeAws()
    aws.me = aws.add(1, "worker_default", "worker").instance_id
    async with aws.serving():
        found = await AwsMetadata(url=aws.url, endpoint=f"{aws.url}/").placement()
    assert found.provider_id == f"aws:///eu-west-1a/{aws.me}"
    assert found.labels == {REGION: "eu-west-1", ZONE: "eu-west-1a", TYPE: "m6a.xlarge"}


async def test_a_machine_of_azure() -> None:
    async with FakeAzure().serving() as azure:
        client = AzureMetadata(imds_url=azure.imds.url, arm_url=azure.arm.url)
        found = await client.placement()
        azure.zone = ""
        nowhere = await client.placement()
    assert re.fullmatch(
        r"azure:///subscriptions/[0-9a-f-]+/resourceGroups/constell-rg/providers/Microsoft.Compute"
        r"/virtualMachineScaleSets/[a-z0-9-]+/virtualMachines/0",
        found.provider_id,
    )
    assert found.labels == {
        REGION: "germanywestcentral",
        ZONE: "germanywestcentral-2",
        TYPE: "Standard_DC4as_v5",
    }
    assert ZONE not in nowhere.labels


async def test_a_machine_of_google_cloud() -> None:
    async with FakeGce().serving() as gce:
        client = GcpMetadata(metadata_url=gce.metadata_url, compute_url=gce.compute_url)
        found = await client.placement()
    assert found.provider_id == f"gce://project/europe-west3-b/{gce.me}"
    assert found.labels == {REGION: "europe-west3", ZONE: "europe-west3-b", TYPE: "n2d-standard-4"}


async def test_a_machine_of_openstack() -> None:
    async with FakeOpenStack().serving() as cloud:
        source = MetadataService(url=cloud.metadata.url)
        found = await OpenStackMetadata(source=source, access=Path("/none")).placement()
    assert found.provider_id == f"openstack:///{cloud.me}"
    assert found.labels == {ZONE: "eu01-1"}


def test_machines_of_the_local_cloud_are_in_no_place() -> None:
    assert placed("local") is None
    assert placed("aws") is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"provider_id": ""},
        {"provider_id": "aws:///a/i-1,--cloud-provider=external"},
        {"provider_id": "aws:///a/i-1 x"},
        {"zone": "a,kubernetes.io/role=master"},
        {"zone": "a=b"},
        {"region": "-a"},
        {"machine_type": "x" * 64},
        {"machine_type": "m6a\n"},
    ],
)
def test_what_would_be_more_than_one_argument_or_label_is_refused(changed: dict[str, str]) -> None:
    usual = {"provider_id": "aws:///a/i-1", "region": "r", "zone": "a", "machine_type": "m6a"}
    assert Placement(**usual).checked().labels
    with pytest.raises(FormatError):
        Placement(**usual | changed).checked()
