"""AWS' clients against a server that checks signatures, pages, pauses, lags and loses answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, FormatError, Unavailable, UserError
from constellation.base.rest import Denied
from constellation.providers.aws import calls
from constellation.providers.aws.imds import Imds
from constellation.providers.aws.instances import list_instances, parse_page
from constellation.providers.aws.metadata import AwsMetadata
from constellation.providers.aws.node_groups import AwsNodeGroups
from constellation.providers.aws.query import QueryClient
from constellation.providers.elements import parse_xml
from constellation.providers.protocols import Role
from tests.fakes.aws_query import UID, FakeAws

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def aws() -> AsyncIterator[FakeAws]:
    fake = FakeAws()
    fake.me = fake.add(1, "control_plane_default", "control-plane").instance_id
    fake.add(2, "worker_default", "worker")
    async with fake.serving():
        yield fake


def _metadata(aws: FakeAws) -> AwsMetadata:
    return AwsMetadata(url=aws.url, endpoint=f"{aws.url}/")


def _groups(aws: FakeAws, **more: float) -> AwsNodeGroups:
    return AwsNodeGroups(url=aws.url, endpoint=f"{aws.url}/", pause_s=0.01, **more)


def _client(aws: FakeAws, **more: float) -> QueryClient:
    source = Imds(url=aws.url)
    return QueryClient(
        region="eu-west-1", source=source, endpoint=f"{aws.url}/", expired_hint="log in", **more
    )


async def test_a_node_knows_itself_its_peers_and_its_document(aws: FakeAws) -> None:
    metadata = _metadata(aws)
    me = await metadata.self_()
    assert (me.instance_id, me.role, me.group) == (
        aws.me,
        Role.CONTROL_PLANE,
        "control_plane_default",
    )
    assert [p.group for p in await metadata.peers()] == ["control_plane_default", "worker_default"]
    assert await metadata.user_data() == aws.user_data


async def test_machines_of_other_clusters_and_dead_ones_are_not_listed(aws: FakeAws) -> None:
    aws.add(3, "worker_default", "worker", uid="another-0a1b2c")
    aws.add(4, "worker_default", "worker", state="shutting-down")
    assert len(await _metadata(aws).peers()) == 2


async def test_a_thousand_machines_come_in_three_calls_of_little_cpu(aws: FakeAws) -> None:
    for number in range(3, 1001):
        aws.add(number, "worker_default", "worker")
    aws.page, aws.calls = 400, []
    client = _client(aws)
    began = time.process_time()
    assert len(await list_instances(client, UID)) == 1000
    # the fake's own work in this process is part of it
    assert time.process_time() - began < 2.0
    assert aws.calls == ["DescribeInstances"] * 3


async def test_a_session_that_ended_is_opened_anew(aws: FakeAws) -> None:
    metadata = _metadata(aws)
    await metadata.self_()
    aws.session = "imds-2"
    assert (await metadata.self_()).instance_id == aws.me


async def test_credentials_that_ran_out_are_fetched_once_more(aws: FakeAws) -> None:
    client = _client(aws)
    await list_instances(client, UID)
    aws.key_id = "AKIA2"
    assert len(await list_instances(client, UID)) == 2


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestExpired", "InvalidClientTokenId"])
async def test_credentials_that_stay_refused_are_said_with_what_to_do(
    aws: FakeAws, code: str
) -> None:
    aws.refuse = [(400, code)] * 2
    with pytest.raises(Denied, match=code) as caught:
        await list_instances(_client(aws), UID)
    assert (caught.value.hint, len(aws.calls)) == ("log in", 2)


async def test_a_missing_permission_is_named_with_the_reason_it_is_needed_for(aws: FakeAws) -> None:
    aws.refuse = [(403, "UnauthorizedOperation")]
    with pytest.raises(Denied) as caught:
        await list_instances(_client(aws), UID)
    assert "ec2:DescribeInstances: find the machines of this cluster" in caught.value.hint


async def test_a_throttled_call_waits_and_goes_on(aws: FakeAws) -> None:
    aws.refuse = [(503, "RequestLimitExceeded"), (400, "Throttling")]
    assert len(await list_instances(_client(aws), UID)) == 2
    assert len(aws.calls) == 3


async def test_what_is_not_sent_twice_blindly_is_sent_again_after_a_pause_that_was_asked_for(
    aws: FakeAws,
) -> None:
    """A throttled call did nothing, also one that must not be done twice."""
    aws.refuse = [(400, "Throttling")]
    (machine,) = (m for m in aws.machines.values() if m.role == "worker")
    wanted = {"InstanceId": machine.instance_id, "ShouldDecrementDesiredCapacity": "true"}
    await _client(aws).call(calls.TERMINATE, wanted)
    assert aws.calls.count("TerminateInstanceInAutoScalingGroup") == 2
    assert aws.terminated == [machine.instance_id]


async def test_throttling_without_end_is_unavailable_after_the_deadline(aws: FakeAws) -> None:
    aws.refuse = [(400, "Throttling")] * 50
    with pytest.raises(Unavailable, match="Throttling"):
        await list_instances(_client(aws, patience_s=0.5), UID)
    assert 1 < len(aws.calls) < 6


async def test_one_machine_is_added_although_the_list_lags(aws: FakeAws) -> None:
    aws.lag = 3
    made = await _groups(aws).create("worker_default")
    assert (made.group, made.role) == ("worker_default", Role.WORKER)
    assert aws.wanted["worker_default"] == 2


async def test_a_lost_answer_of_adding_does_not_add_two(aws: FakeAws) -> None:
    aws.lose = ["SetDesiredCapacity"]
    await _groups(aws).create("worker_default")
    assert aws.calls.count("SetDesiredCapacity") == 2
    assert aws.wanted["worker_default"] == 2


async def test_a_lost_answer_of_removing_is_not_sent_again_blindly(aws: FakeAws) -> None:
    worker = next(m for m in aws.machines.values() if m.role == "worker").instance_id
    aws.lose = ["TerminateInstanceInAutoScalingGroup"]
    with pytest.raises(Unavailable):
        await _groups(aws).delete(worker)
    await _groups(aws).delete(worker)
    assert aws.terminated == [worker]
    assert aws.wanted["worker_default"] == 0


async def test_a_machine_that_is_never_listed_is_unavailable(aws: FakeAws) -> None:
    aws.lag = 10_000
    with pytest.raises(Unavailable, match="not listed yet"):
        await _groups(aws, made_s=0.2).create("worker_default")


async def test_a_full_group_and_an_unknown_one_are_refused(aws: FakeAws) -> None:
    aws.most = 1
    with pytest.raises(Conflict, match="1 of at most 1"):
        await _groups(aws).create("worker_default")
    with pytest.raises(UserError, match="no autoscaling group"):
        await _groups(aws).create("no_such_group")


async def test_a_control_plane_leaves_the_load_balancer_before_it_goes(aws: FakeAws) -> None:
    # the fake refuses to terminate what is still a target
    await _groups(aws).delete(aws.me)
    assert aws.terminated == [aws.me]
    order = [
        c for c in aws.calls if c in ("DeregisterTargets", "TerminateInstanceInAutoScalingGroup")
    ]
    assert order == ["DeregisterTargets", "TerminateInstanceInAutoScalingGroup"]
    assert aws.calls.count("DescribeTargetHealth") == 3
    assert aws.wanted["control_plane_default"] == 0


async def test_deleting_twice_is_no_error_and_deletes_once(aws: FakeAws) -> None:
    groups = _groups(aws)
    worker = next(m for m in aws.machines.values() if m.role == "worker").instance_id
    for _ in range(2):
        await groups.delete(worker)
    assert aws.terminated == [worker]


async def test_a_target_group_that_is_gone_does_not_keep_a_machine(aws: FakeAws) -> None:
    aws.gone = ["arn:api"]
    await _groups(aws).delete(aws.me)
    assert aws.terminated == [aws.me]


@pytest.mark.parametrize("name", ["", "i-1 or 1=1", "i-zz", "../i-0123456789abcdef0"])
async def test_what_names_no_machine_is_refused_before_anything_is_sent(
    aws: FakeAws, name: str
) -> None:
    with pytest.raises(UserError):
        await _groups(aws).delete(name)
    assert aws.calls == []


def test_an_entry_of_another_cluster_makes_the_whole_list_unusable() -> None:
    page = (
        "<R><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId><instanceState>"
        "<name>running</name></instanceState><privateIpAddress>10.0.0.1</privateIpAddress><tagSet>"
        "<item><key>constellation-uid</key><value>other-0a1b2c</value></item></tagSet></item>"
        "</instancesSet></item></reservationSet></R>"
    )
    with pytest.raises(FormatError, match="asked for constell-0a1b2c"):
        parse_page(parse_xml(page.encode(), what="x"), UID)


@pytest.mark.parametrize(
    "data",
    [b"", b"<a>", b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", b"{}", b"\xff" * 10, b"<a>" * 5000],
)
def test_what_is_no_plain_xml_is_malformed(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_xml(data, what="answer")
