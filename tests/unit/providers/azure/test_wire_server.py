"""The wire server is told that a machine was set up, and nothing that it says gets further."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError, Unavailable
from constellation.base.rest import Missing, Refused
from constellation.providers.azure import wire_server
from constellation.providers.azure.wire_server import GoalState, WireServer, parse_goal_state
from tests.fakes.wire_server import CONTAINER, INSTANCE, FakeWireServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def wire() -> AsyncIterator[FakeWireServer]:
    server = FakeWireServer()
    async with server.serving():
        yield server


def goal_state(
    *, incarnation: str = "1", container: str = CONTAINER, instance: str = INSTANCE, head: str = ""
) -> bytes:
    return (
        f"{head}<GoalState><Incarnation>{incarnation}</Incarnation><Container><ContainerId>"
        f"{container}</ContainerId><RoleInstanceList><RoleInstance><InstanceId>{instance}"
        "</InstanceId></RoleInstance></RoleInstanceList></Container></GoalState>"
    ).encode()


async def test_a_machine_says_once_that_it_is_ready(wire: FakeWireServer) -> None:
    await WireServer(url=wire.url).report_ready()
    assert wire.reports == [INSTANCE]
    assert wire.requests == [("GET", "/machine"), ("POST", "/machine")]


async def test_a_report_about_a_goal_state_that_is_over_is_refused(wire: FakeWireServer) -> None:
    wire.moves = 1
    with pytest.raises(Missing, match=r"POST /machine\?comp=health: status 410"):
        await WireServer(url=wire.url).report_ready()
    await WireServer(url=wire.url).report_ready()
    assert wire.reports == [INSTANCE]


@pytest.mark.parametrize(
    ("status", "error"), [(400, Refused), (500, Unavailable), (302, Refused), (404, Missing)]
)
async def test_an_answer_that_says_no_is_an_error(
    wire: FakeWireServer, status: int, error: type[Exception]
) -> None:
    wire.fail = [status]
    with pytest.raises(error, match=f"status {status}"):
        await WireServer(url=wire.url).report_ready()
    assert not wire.reports


_BOMB = (
    '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {x} "{f"&{y};" * 10}">' for x, y in zip("bcdefgh", "abcdefg", strict=True))
    + "]>"
)


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        pytest.param(b"", "not XML", id="nothing"),
        pytest.param(b"<GoalState>", "not XML", id="not closed"),
        pytest.param(b"<GoalState/>", "missing", id="empty"),
        pytest.param(goal_state(head=_BOMB, instance="&h;"), "document type", id="entity bomb"),
        pytest.param(
            goal_state(head=_BOMB, instance="&h;").decode().encode("utf-16"),
            "not UTF-8",
            id="entity bomb in another encoding",
        ),
        pytest.param(
            goal_state(head='<!DOCTYPE a SYSTEM "file:///etc/shadow">'),
            "document type",
            id="external document type",
        ),
        pytest.param(b"<a>" * 20_000, "not XML", id="deep"),
        pytest.param(goal_state(instance="x" * (1 << 21)), "more than 65536 bytes", id="megabytes"),
        pytest.param(goal_state(instance="x" * 257), "InstanceId", id="a long id"),
        pytest.param(
            goal_state(instance="a&lt;/InstanceId&gt;&lt;State&gt;"), "InstanceId", id="markup"
        ),
        pytest.param(goal_state(instance="a&amp;b"), "InstanceId", id="ampersand"),
        pytest.param(goal_state(instance="a<b/>"), "InstanceId", id="an element in the id"),
        pytest.param(goal_state(instance=""), "InstanceId", id="no instance"),
        pytest.param(goal_state(container=CONTAINER + "&lt;a/&gt;"), "ContainerId", id="container"),
        pytest.param(goal_state(container="not-a-guid"), "ContainerId", id="no GUID"),
        pytest.param(goal_state(incarnation="1&lt;a/&gt;"), "Incarnation", id="incarnation"),
        pytest.param(goal_state(incarnation="-1"), "Incarnation", id="negative"),
        pytest.param(goal_state(incarnation="٣"), "Incarnation", id="other digits"),
    ],
)
async def test_a_hostile_goal_state_is_refused_and_nothing_is_said_about_it(
    wire: FakeWireServer, hostile: bytes, why: str
) -> None:
    wire.goal_state = hostile
    with pytest.raises(FormatError, match=why):
        await WireServer(url=wire.url).report_ready()
    assert wire.count("POST", "/machine") == 0


@given(instance=st.text(max_size=60), container=st.text(max_size=40), incarnation=st.text())
def test_whatever_a_goal_state_says_the_report_has_the_same_elements(
    instance: str, container: str, incarnation: str
) -> None:
    root = ET.fromstring(goal_state())  # noqa: S314 - our own bytes
    for path, text in (
        ("Incarnation", incarnation),
        ("Container/ContainerId", container),
        ("Container/RoleInstanceList/RoleInstance/InstanceId", instance),
    ):
        found = root.find(path)
        assert found is not None
        found.text = text
    try:
        goal = parse_goal_state(ET.tostring(root, encoding="utf-8"))
    except FormatError:
        return
    assert_report_of(goal)


@given(
    st.builds(
        GoalState,
        incarnation=st.from_regex(r"[0-9]{1,10}", fullmatch=True).filter(str.isascii),
        container_id=st.uuids().map(str),
        instance_id=st.from_regex(r"[A-Za-z0-9._-]{1,256}", fullmatch=True),
    )
)
def test_a_goal_state_comes_back_in_its_report(goal: GoalState) -> None:
    made = goal_state(
        incarnation=goal.incarnation, container=goal.container_id, instance=goal.instance_id
    )
    assert parse_goal_state(made) == goal
    assert_report_of(goal)


def assert_report_of(goal: GoalState) -> None:
    report = ET.fromstring(wire_server.ready(goal))  # noqa: S314 - what is tested
    assert [(e.tag, e.text) for e in report.iter()] == [
        ("Health", None),
        ("GoalStateIncarnation", goal.incarnation),
        ("Container", None),
        ("ContainerId", goal.container_id),
        ("RoleInstanceList", None),
        ("Role", None),
        ("InstanceId", goal.instance_id),
        ("Health", None),
        ("State", "Ready"),
    ]
