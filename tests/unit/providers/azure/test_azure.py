from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, FormatError
from constellation.base.rest import Denied, Throttled
from constellation.providers.answers import Fields
from constellation.providers.azure.calls import METADATA_CALLS, NODE_GROUP_CALLS
from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.azure.node_groups import AzureNodeGroups, detached
from constellation.providers.protocols import Role
from tests.fakes.arm import GROUP_PATH, FakeAzure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WORKERS = "constell-ab12cd-worker-default"


@pytest.fixture
async def azure() -> AsyncIterator[FakeAzure]:
    async with FakeAzure().serving() as made:
        yield made


def metadata(azure: FakeAzure) -> AzureMetadata:
    return AzureMetadata(imds_url=azure.imds.url, arm_url=azure.arm.url)


def groups(azure: FakeAzure) -> AzureNodeGroups:
    return AzureNodeGroups(
        imds_url=azure.imds.url, arm_url=azure.arm.url, pause_s=0.001, drain_s=0.001
    )


async def test_a_machine_learns_who_it_is_and_who_its_peers_are(azure: FakeAzure) -> None:
    own = await metadata(azure).self_()
    assert (own.instance_id, own.role, own.address) == (azure.me, Role.CONTROL_PLANE, "10.42.1.10")
    peers = await metadata(azure).peers()
    assert [(p.instance_id, p.address, p.state, p.role) for p in peers] == [
        (azure.me, "10.42.1.10", "running", Role.CONTROL_PLANE),
        (f"{WORKERS}_0", "10.42.1.11", "running", Role.WORKER),
    ]
    assert await metadata(azure).user_data() == azure.user_data


async def test_scale_sets_of_other_clusters_are_not_ours(azure: FakeAzure) -> None:
    azure.sets[WORKERS].uid = "other-00ffff"
    assert [p.instance_id for p in await metadata(azure).peers()] == [azure.me]


async def test_many_machines_come_page_by_page(azure: FakeAzure) -> None:
    for _ in range(250):
        azure.add(WORKERS)
    peers = await metadata(azure).peers()
    assert len(peers) == 252
    assert all(p.address for p in peers)
    assert azure.arm.count("GET", GROUP_PATH + "/{scale_set}/virtualMachines") == 4
    assert azure.arm.count("GET", GROUP_PATH + "/{scale_set}/networkInterfaces") == 4


async def test_a_pause_that_the_service_asks_for_is_kept(azure: FakeAzure) -> None:
    azure.arm.throttle = [0]
    assert len(await metadata(azure).peers()) == 2
    azure.arm.throttle = [900]
    with pytest.raises(Throttled, match="a pause of 900 s"):
        await metadata(azure).peers()


async def test_an_expired_token_is_renewed_once_and_then_named(azure: FakeAzure) -> None:
    client = metadata(azure)
    await client.peers()
    azure.token_serial += 1
    assert len(await client.peers()) == 2
    azure.accepts_tokens = False
    with pytest.raises(Denied, match="ExpiredAuthenticationToken") as caught:
        await client.peers()
    assert "identity" in caught.value.hint


async def test_a_machine_without_identity_says_so(azure: FakeAzure) -> None:
    azure.has_identity = False
    with pytest.raises(Conflict, match="Identity not found"):
        await metadata(azure).peers()


async def test_a_new_machine_is_the_one_that_was_not_there(azure: FakeAzure) -> None:
    made = await groups(azure).create("worker_default")
    assert made.instance_id == f"{WORKERS}_1"
    assert made.address == "10.42.1.12"
    assert azure.arm.count("GET", GROUP_PATH + "/{scale_set}/virtualMachines") == 3


async def test_a_quota_that_is_full_is_named(azure: FakeAzure) -> None:
    azure.quota = 2
    with pytest.raises(Conflict, match="Total Regional Cores quota"):
        await groups(azure).create("worker_default")


async def test_an_unknown_group_is_a_conflict(azure: FakeAzure) -> None:
    with pytest.raises(Conflict, match="0 scale sets"):
        await groups(azure).create("nobody")


async def test_a_machine_leaves_the_load_balancer_before_it_is_removed(azure: FakeAzure) -> None:
    azure.slow_updates = 2
    for _ in range(2):
        await groups(azure).delete(f"{WORKERS}_0")
    assert azure.deleted == [(f"{WORKERS}_0", False)]
    assert azure.arm.count("GET", GROUP_PATH + "/{scale_set}/virtualMachines/{vm}") == 4


async def test_a_machine_that_is_being_removed_is_left_alone(azure: FakeAzure) -> None:
    azure.sets[WORKERS].vms["0"].provisioning = "Deleting"
    await groups(azure).delete(f"{WORKERS}_0")
    assert azure.deleted == []


def test_a_model_without_interfaces_is_refused() -> None:
    profile = {"networkProfileConfiguration": {"networkInterfaceConfigurations": []}}
    with pytest.raises(FormatError, match="no interface"):
        detached(Fields({"properties": profile}, "machine"))


async def test_a_next_page_at_another_host_is_refused(azure: FakeAzure) -> None:
    for _ in range(200):
        azure.add(WORKERS)
    url, azure.arm.url = azure.arm.url, "https://evil.example"
    client = AzureMetadata(imds_url=azure.imds.url, arm_url=url)
    with pytest.raises(FormatError, match="next page"):
        await client.peers()


async def test_claims_that_are_malformed_are_refused(azure: FakeAzure) -> None:
    azure.sets[WORKERS].role = "king"
    with pytest.raises(FormatError, match="'king' is no role"):
        await metadata(azure).peers()


async def test_the_tables_hold_every_call_and_no_other(azure: FakeAzure) -> None:
    client = groups(azure)
    made = await client.create("worker_default")
    await client.delete(made.instance_id)
    assert set(azure.arm.requests) == {(c.method, c.path) for c in NODE_GROUP_CALLS}
    azure.arm.requests.clear()
    await metadata(azure).peers()
    assert set(azure.arm.requests) == {(c.method, c.path) for c in METADATA_CALLS}
