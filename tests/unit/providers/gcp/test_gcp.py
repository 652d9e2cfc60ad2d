from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, FormatError, Unavailable, UserError
from constellation.base.rest import Denied, Throttled
from constellation.providers.gcp.calls import METADATA_CALLS, NODE_GROUP_CALLS
from constellation.providers.gcp.metadata import GcpMetadata
from constellation.providers.gcp.node_groups import GcpNodeGroups
from constellation.providers.protocols import Role
from tests.fakes.gce import FakeGce
from tests.fakes.rest_service import Request, RestService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIST = ("GET", "/compute/v1/projects/{project}/aggregated/instances")


@pytest.fixture
async def gce() -> AsyncIterator[FakeGce]:
    async with FakeGce().serving() as cloud:
        yield cloud


def metadata(gce: FakeGce) -> GcpMetadata:
    return GcpMetadata(metadata_url=gce.metadata_url, compute_url=gce.compute_url)


def groups(gce: FakeGce) -> GcpNodeGroups:
    return GcpNodeGroups(metadata_url=gce.metadata_url, compute_url=gce.compute_url, pause_s=0.001)


async def test_a_machine_learns_who_it_is_and_who_its_peers_are(gce: FakeGce) -> None:
    own = await metadata(gce).self_()
    assert (own.instance_id, own.role, own.group) == (
        gce.me, Role.CONTROL_PLANE, "control_plane_default",
    )  # fmt: skip
    gce.add("worker_default", "else", uid="other-00ffff")
    gce.ignores_filter = True  # what belongs to this cluster is not the service's to say
    peers = await metadata(gce).peers()
    assert {p.address for p in peers} == {"10.42.1.10", "10.42.1.11"}
    assert {p.state for p in peers} == {"running"}
    assert await metadata(gce).user_data() == gce.user_data


async def test_an_answer_without_the_flavor_is_not_google(gce: FakeGce) -> None:
    other = RestService()
    other.route("GET", "/computeMetadata/v1/instance/", lambda _: {"name": "x"})
    async with other.serving():
        with pytest.raises(FormatError, match="not Google's"):
            await GcpMetadata(metadata_url=other.url, compute_url=gce.compute_url).self_()


async def test_a_thousand_machines_are_two_pages_and_little_work(gce: FakeGce) -> None:
    for number in range(998):
        gce.add("worker_default", f"{number:04x}z")
    start = time.process_time()
    peers = await metadata(gce).peers()
    assert len(peers) == 1000
    assert gce.compute.count(*LIST) == 2
    assert time.process_time() - start < 2  # the fake's share included


async def test_a_pause_that_the_service_asks_for_is_kept(gce: FakeGce) -> None:
    gce.compute.throttle = [0, 0]
    assert len(await metadata(gce).peers()) == 2
    gce.compute.throttle = [3600]
    with pytest.raises(Throttled, match="a pause of 3600 s"):
        await metadata(gce).peers()


async def test_an_outage_of_a_moment_is_waited_for(gce: FakeGce) -> None:
    gce.compute.fail = [500, 503]
    assert len(await metadata(gce).peers()) == 2


async def test_an_expired_token_is_renewed_once_and_then_named(gce: FakeGce) -> None:
    client = metadata(gce)
    await client.peers()
    gce.token_serial += 1
    assert len(await client.peers()) == 2
    gce.accepts_tokens = False
    with pytest.raises(Denied, match=r"compute\.instances\.list") as caught:
        await client.peers()
    assert "service account" in caught.value.hint


async def test_a_new_machine_is_given_once_it_is_listed(gce: FakeGce) -> None:
    made = await groups(gce).create("worker_default")
    assert made.group == "worker_default"
    assert made.instance_id in gce.vms
    assert gce.compute.count(*LIST) == 2  # missing at first


async def test_a_refused_machine_says_why(gce: FakeGce) -> None:
    gce.quota = 2
    with pytest.raises(Conflict, match="Quota 'N2D_CPUS' exceeded"):
        await groups(gce).create("worker_default")


async def test_an_unknown_group_is_a_conflict_and_no_name_an_error(gce: FakeGce) -> None:
    with pytest.raises(Conflict, match="0 managed instance groups"):
        await groups(gce).create("nobody")
    with pytest.raises(UserError):
        await groups(gce).create(".*")


async def test_deleting_drains_and_can_be_repeated(gce: FakeGce) -> None:
    name = next(n for n, v in gce.vms.items() if v.group == "worker_default")
    for _ in range(2):
        await groups(gce).delete(name)
    assert gce.drained == [name]
    assert [i.instance_id for i in await groups(gce).list_instances()] == [gce.me]


async def test_a_machine_of_no_group_is_left_alone(gce: FakeGce) -> None:
    gce.add("worker_default", "lone").manager = ""
    with pytest.raises(Conflict, match="no group made"):
        await groups(gce).delete("constell-ab12cd-worker-default-lone")


async def test_a_machine_of_another_cluster_is_never_deleted(gce: FakeGce) -> None:
    other = gce.add("worker_default", "else", uid="other-00ffff")
    await groups(gce).delete(other.name)
    assert other.name in gce.vms


async def test_claims_that_are_malformed_are_refused(gce: FakeGce) -> None:
    gce.vms[gce.me].role = "king"
    with pytest.raises(FormatError, match="'king' is no role"):
        await metadata(gce).peers()
    gce.vms[gce.me].role = "worker"
    gce.vms[gce.me].address = "::1"
    with pytest.raises(FormatError, match="no IPv4 address"):
        await metadata(gce).self_()


async def test_no_server_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await GcpMetadata(metadata_url="http://127.0.0.1:1").self_()


async def test_the_tables_hold_every_call_and_no_other(gce: FakeGce) -> None:
    client = groups(gce)
    made = await client.create("worker_default")
    await client.delete(made.instance_id)
    made_calls = {(m, p.removeprefix("/compute/v1")) for m, p in gce.compute.requests}
    assert made_calls == {(c.method, c.path) for c in NODE_GROUP_CALLS}
    gce.compute.requests.clear()
    await metadata(gce).peers()
    made_calls = {(m, p.removeprefix("/compute/v1")) for m, p in gce.compute.requests}
    assert made_calls == {(c.method, c.path) for c in METADATA_CALLS}


async def test_a_page_that_never_ends_is_refused(gce: FakeGce) -> None:
    endless = RestService()

    def page(_request: Request) -> dict[str, object]:
        return {"items": {}, "nextPageToken": "again"}

    endless.route("GET", "/projects/{project}/aggregated/instances", page)
    async with endless.serving():
        with pytest.raises(FormatError, match="more than 200 pages"):
            await GcpMetadata(metadata_url=gce.metadata_url, compute_url=endless.url).peers()
