from __future__ import annotations

import dataclasses
import json

import pytest

from constellation.base.errors import FormatError
from constellation.providers.azure.component_config import cloud_conf
from constellation.providers.azure.imds import Self
from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.protocols import Role
from constellation.providers.select import configures
from tests.fakes.arm import RESOURCE_GROUP, SUBSCRIPTION, FakeAzure

OWN = Self(
    name="x",
    subscription=SUBSCRIPTION,
    resource_group="a-group",
    uid="constell-ab12cd",
    role=Role.CONTROL_PLANE,
    group="control_plane_default",
    address="10.42.1.10",
    location="germanywestcentral",
    network="net.group/a-net/a-subnet",
)


async def test_a_machine_says_where_its_cluster_lies() -> None:
    async with FakeAzure().serving() as azure:
        metadata = AzureMetadata(imds_url=azure.imds.url, arm_url=azure.arm.url)
        (name, content), *more = (await metadata.component_config()).items()
    assert (name, more) == ("cloud.conf", [])
    said = json.loads(content)
    assert said["subscriptionId"] == SUBSCRIPTION
    assert (said["resourceGroup"], said["securityGroupName"]) == (RESOURCE_GROUP, azure.uid)
    assert (said["vnetResourceGroup"], said["vnetName"]) == (RESOURCE_GROUP, azure.uid)
    assert said["subnetName"] == f"{azure.uid}-nodes"


def test_tokens_are_the_machines_and_nothing_secret_is_told() -> None:
    said = json.loads(cloud_conf(OWN))
    assert said["useManagedIdentityExtension"] is True
    assert said["cloudConfigType"] == "file"
    assert not {k for k in said if "secret" in k.lower() or "endpoint" in k.lower()}


def test_an_existing_network_is_its_own_resource_groups() -> None:
    said = json.loads(cloud_conf(OWN))
    assert (said["vnetResourceGroup"], said["vnetName"], said["subnetName"]) == (
        "net.group",
        "a-net",
        "a-subnet",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", ""),
        ("network", "group/net"),
        ("network", "group/net/subnet/more"),
        ("network", "group/../subnet"),
        ("network", "group/net/sub\nnet"),
        ("network", "group/n\u00e9t/subnet"),
        ("subscription", "not-a-uuid"),
        ("resource_group", "a/b"),
        ("resource_group", ""),
        ("location", "https://example.com"),
        ("location", ""),
    ],
)
def test_metadata_that_name_no_such_thing_are_refused(field: str, value: str) -> None:
    with pytest.raises(FormatError, match="IMDS"):
        cloud_conf(dataclasses.replace(OWN, **{field: value}))


def test_no_other_cloud_tells_anything() -> None:
    assert configures("azure") is not None
    for provider in ("aws", "gcp", "openstack", "local", "baremetal"):
        assert configures(provider) is None
