from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, FormatError
from constellation.base.rest import Denied, Throttled
from constellation.base.secret import Secret
from constellation.providers.openstack.access import Components, dump_access, load_access
from constellation.providers.openstack.calls import NODE_GROUP_CALLS
from constellation.providers.openstack.metadata import (
    ConfigDrive,
    MetadataService,
    OpenStackMetadata,
)
from constellation.providers.openstack.node_groups import OpenStackNodeGroups
from constellation.providers.protocols import Role
from tests.fakes.openstack import FakeOpenStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIST = ("GET", "/compute/v2.1/servers/detail")


@pytest.fixture
async def cloud() -> AsyncIterator[FakeOpenStack]:
    async with FakeOpenStack().serving() as made:
        yield made


def metadata(cloud: FakeOpenStack, folder: Path) -> OpenStackMetadata:
    source = MetadataService(url=cloud.metadata.url)
    return OpenStackMetadata(source=source, access=folder / "openstack.json")


def control_plane(cloud: FakeOpenStack, folder: Path) -> OpenStackMetadata:
    (folder / "openstack.json").write_bytes(dump_access(cloud.access()).reveal())
    return metadata(cloud, folder)


def groups(cloud: FakeOpenStack) -> OpenStackNodeGroups:
    return OpenStackNodeGroups(
        cloud.access(), node_document=cloud.user_data, pause_s=0.001, drain_s=0.001
    )


async def test_a_machine_learns_who_it_is(cloud: FakeOpenStack, tmp_path: Path) -> None:
    own = await metadata(cloud, tmp_path).self_()
    assert (own.instance_id, own.role, own.address) == (cloud.me, Role.CONTROL_PLANE, "10.42.1.10")
    assert await metadata(cloud, tmp_path).user_data() == cloud.user_data


async def test_a_config_drive_says_the_same(cloud: FakeOpenStack, tmp_path: Path) -> None:
    server = cloud.servers[cloud.me]
    meta = {"uuid": server.server_id, "name": server.name, "meta": server.metadata}
    for path, content in (
        ("openstack/latest/meta_data.json", json.dumps(meta).encode()),
        ("openstack/latest/user_data", cloud.user_data),
        ("ec2/latest/meta-data.json", b'{"local-ipv4": "10.42.1.10"}'),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    drive = OpenStackMetadata(source=ConfigDrive(folder=tmp_path), access=tmp_path / "none")
    assert await drive.self_() == await metadata(cloud, tmp_path).self_()
    assert await drive.user_data() == cloud.user_data


async def test_a_worker_knows_control_planes_only(cloud: FakeOpenStack, tmp_path: Path) -> None:
    peers = await metadata(cloud, tmp_path).peers()
    assert [(p.address, p.role) for p in peers] == [("10.42.1.10", Role.CONTROL_PLANE)]
    assert cloud.service.requests == []


async def test_a_control_plane_lists_all(cloud: FakeOpenStack, tmp_path: Path) -> None:
    cloud.add("worker_default", "worker", uid="other-00ffff")
    peers = await control_plane(cloud, tmp_path).peers()
    assert [p.address for p in peers] == ["10.42.1.10", "10.42.1.11"]
    assert [p.state for p in peers] == ["running", "running"]


async def test_a_tag_alone_makes_no_server_ours(cloud: FakeOpenStack, tmp_path: Path) -> None:
    cloud.add("worker_default", "worker", uid="other-00ffff").tags.append(
        "constellation-uid-constell-ab12cd"
    )
    assert len(await control_plane(cloud, tmp_path).peers()) == 2


async def test_many_servers_come_page_by_page(cloud: FakeOpenStack, tmp_path: Path) -> None:
    for _ in range(998):
        cloud.add("worker_default", "worker")
    assert len(await control_plane(cloud, tmp_path).peers()) == 1000
    assert cloud.service.count(*LIST) == 2


async def test_a_pause_that_the_service_asks_for_is_kept(
    cloud: FakeOpenStack, tmp_path: Path
) -> None:
    cloud.service.throttle = [0]
    assert len(await control_plane(cloud, tmp_path).peers()) == 2
    cloud.service.throttle = [900]
    with pytest.raises(Throttled, match="a pause of 900 s"):
        await control_plane(cloud, tmp_path).peers()


async def test_an_expired_token_is_renewed_and_a_revoked_credential_named(
    cloud: FakeOpenStack,
) -> None:
    client = groups(cloud)
    await client.list_instances()
    cloud.token_serial += 1
    assert len(await client.list_instances()) == 2
    cloud.token_serial += 1
    cloud.revoked = True
    with pytest.raises(Denied, match="Keystone") as caught:
        await client.list_instances()
    assert "revoked or has expired" in caught.value.hint


async def test_a_new_worker_gets_document_and_addresses(cloud: FakeOpenStack) -> None:
    cloud.build_looks = 2
    made = await groups(cloud).create("worker_default")
    server = cloud.servers[made.instance_id]
    assert server.user_data == cloud.user_data
    assert server.metadata["constellation-control-planes"] == "10.42.1.10"
    assert made.address == server.address
    assert made.address not in cloud.members.values()


async def test_a_new_control_plane_is_balanced_and_told_to_all(cloud: FakeOpenStack) -> None:
    cloud.balancer_busy = 2
    made = await groups(cloud).create("control_plane_default")
    assert made.address in cloud.members.values()
    told = {s.metadata["constellation-control-planes"] for s in cloud.servers.values()}
    assert told == {f"10.42.1.10,{made.address}"}


async def test_nothing_is_left_of_a_control_plane_to_which_nothing_would_lead(
    cloud: FakeOpenStack,
) -> None:
    cloud.most_members = 1
    before = dict(cloud.servers), dict(cloud.ports), dict(cloud.members)
    with pytest.raises(Conflict, match="Quota exceeded for resources"):
        await groups(cloud).create("control_plane_default")
    assert (cloud.servers, cloud.ports, cloud.members) == before
    told = {s.metadata["constellation-control-planes"] for s in cloud.servers.values()}
    assert told == {"10.42.1.10"}


async def test_nothing_is_left_of_a_machine_that_could_not_be_made(cloud: FakeOpenStack) -> None:
    cloud.no_host = True
    before = dict(cloud.servers), dict(cloud.ports)
    with pytest.raises(Conflict, match="No valid host was found"):
        await groups(cloud).create("worker_default")
    assert (cloud.servers, cloud.ports) == before


async def test_no_port_is_left_of_a_machine_that_was_refused(cloud: FakeOpenStack) -> None:
    cloud.quota = 2
    before = dict(cloud.ports)
    with pytest.raises(Conflict, match="Quota exceeded for instances"):
        await groups(cloud).create("worker_default")
    assert cloud.ports == before


async def test_a_machine_leaves_the_load_balancer_before_it_is_removed(
    cloud: FakeOpenStack,
) -> None:
    second = await groups(cloud).create("control_plane_default")
    name = cloud.servers[second.instance_id].name
    cloud.events.clear()
    cloud.balancer_busy = 1
    for _ in range(2):
        await groups(cloud).delete(second.instance_id)
    assert cloud.events == [f"gone {name}"]
    assert name not in {n for n, _ in cloud.ports.values()}
    told = {s.metadata["constellation-control-planes"] for s in cloud.servers.values()}
    assert told == {"10.42.1.10"}


async def test_a_machine_of_another_cluster_is_never_deleted(cloud: FakeOpenStack) -> None:
    other = cloud.add("worker_default", "worker", uid="other-00ffff")
    await groups(cloud).delete(other.server_id)
    assert other.server_id in cloud.servers


async def test_an_unknown_group_is_a_conflict(cloud: FakeOpenStack) -> None:
    with pytest.raises(Conflict, match="no template"):
        await groups(cloud).create("nobody")


async def test_another_region_has_no_endpoints(cloud: FakeOpenStack) -> None:
    access = replace(cloud.access(), region="RegionTen")
    with pytest.raises(FormatError, match="no public endpoint of compute in RegionTen"):
        await OpenStackNodeGroups(access, node_document=b"").list_instances()


async def test_claims_that_are_malformed_are_refused(cloud: FakeOpenStack, tmp_path: Path) -> None:
    server = cloud.servers[cloud.me]
    server.metadata["constellation-control-planes"] = "10.42.1.10,example.org"
    with pytest.raises(FormatError, match="no IPv4 address"):
        await metadata(cloud, tmp_path).peers()
    server.metadata["constellation-role"] = "king"
    with pytest.raises(FormatError, match="'king' is no role"):
        await metadata(cloud, tmp_path).self_()


def test_the_access_file_is_secret_and_strict() -> None:
    access = FakeOpenStack().access()
    access = replace(access, auth_url="https://keystone.example/v3")
    dumped = dump_access(access)
    assert load_access(dumped) == access
    assert "sesame" not in repr(access)
    with pytest.raises(FormatError, match="/v3"):
        load_access(dump_access(replace(access, auth_url="https://keystone.example")))
    with pytest.raises(FormatError, match="unknown key"):
        load_access(Secret(dumped.reveal().replace(b'"region"', b'"extra":1,"region"')))


def test_an_access_without_components_is_what_nodes_of_older_clusters_read() -> None:
    access = replace(FakeOpenStack().access(), auth_url="https://keystone.example/v3")
    assert b"components" not in dump_access(access).reveal()
    theirs = Components(
        credential_id="components",
        credential_secret=Secret(b"theirs"),
        subnet_id="subnet",
        floating_network_id="external",
    )
    with_theirs = replace(access, components=theirs)
    assert load_access(dump_access(with_theirs)) == with_theirs
    assert "theirs" not in repr(with_theirs)


async def test_the_access_rules_hold_every_call_and_no_other(cloud: FakeOpenStack) -> None:
    client = groups(cloud)
    made = await client.create("control_plane_default")
    await client.delete(made.instance_id)
    seen = {(m, p[p.index("/", 1) :]) for m, p in cloud.service.requests if "/identity/" not in p}
    assert seen == {(c.method, c.path) for c in NODE_GROUP_CALLS}
