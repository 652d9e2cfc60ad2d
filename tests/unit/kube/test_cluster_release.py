"""What the roll-out's custom resources say is read strictly, and written as it is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.errors import FormatError
from constellation.kube import cluster_release as cr
from constellation.kube.membership import NodeRole
from constellation.kube.rollout import Bounds, NodeGroup

ORDER = cr.Order(kind=cr.OrderKind.UPGRADE, policySerial=3, kubernetes="v1.36.2")
NODE = cr.NodeStatus(
    name="worker-0",
    image="ab" * 32,
    kubelet="v1.36.2",
    apiServer="",
    health="ready",
    step="",
    since="2026-11-29T12:00:00Z",
    reason="",
)
STATUS = cr.ReleaseStatus(phase=cr.Phase.ROLLING, policySerial=3, message="m", nodes=(NODE,))


def test_orders_reports_and_status_come_back_as_they_were_written() -> None:
    assert cr.parse_orders({"orders": {"a": cr.dump_order(ORDER)}}) == {"a": ORDER}
    report = cr.Report(order=ORDER, done=False, reason="why")
    assert cr.parse_reports({"reports": {"a": cr.dump_report(report)}}) == {"a": report}
    both = cr.dump_status(STATUS) | {"reports": {"a": cr.dump_report(report)}}
    assert cr.parse_status(both) == STATUS


def test_nothing_written_yet_is_nothing() -> None:
    assert cr.parse_status(None) is None
    assert cr.parse_status({"reports": {}}) is None
    assert cr.parse_orders(None) == {}
    assert cr.parse_reports({}) == {}


@given(size=st.sampled_from([1, 3, 5]))
def test_a_group_comes_back_as_it_was_written(size: int) -> None:
    group = NodeGroup(name="control_plane_default", role=NodeRole.CONTROL_PLANE, size=size)
    assert cr.parse_group(cr.dump_group(group), what="g") == group
    workers = NodeGroup(
        name="w",
        role=NodeRole.WORKER,
        size=size,
        bounds=Bounds(least=1, most=9),
        leaving=("i-1",),
    )
    assert cr.parse_group(cr.dump_group(workers), what="g") == workers
    assert cr.group_object_name(group.name) == "control-plane-default"


GOOD: dict[str, Any] = {"group": "w", "role": "worker", "size": 2}


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        GOOD | {"size": -1},
        GOOD | {"size": 1001},
        GOOD | {"size": "2"},
        GOOD | {"role": "owner"},
        GOOD | {"role": "control-plane"},  # two control planes
        GOOD | {"surge": 0},  # nothing could be replaced
        GOOD | {"more": 1},
        GOOD | {"min": 1},  # no end
        GOOD | {"max": 3},
        GOOD | {"min": 0, "max": 3},
        GOOD | {"min": 3, "max": 2},
        GOOD | {"leaving": "i-1"},
        GOOD | {"leaving": ["i"] * 1001},
        GOOD | {"role": "control-plane", "size": 3, "min": 1, "max": 3},
        GOOD | {"role": "control-plane", "size": 3, "leaving": ["i-1"]},
    ],
)
def test_a_group_that_cannot_be_rolled_is_refused(spec: Any) -> None:
    assert cr.parse_group(GOOD, what="g").size == 2
    with pytest.raises(FormatError):
        cr.parse_group(spec, what="g")


def test_the_definitions_know_every_field_that_is_written() -> None:
    release, group = cr.definitions()
    schema = release["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    node = schema["status"]["properties"]["nodes"]["items"]["properties"]
    assert set(node) == set(cr.dump_status(STATUS)["nodes"][0])
    assert {*cr.dump_status(STATUS), "reports"} == set(schema["status"]["properties"])
    order = schema["spec"]["properties"]["orders"]["additionalProperties"]["properties"]
    assert set(order) == set(cr.dump_order(ORDER) or {})
    spec = group["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(spec["properties"]) == set(
        cr.dump_group(NodeGroup(name="w", role=NodeRole.WORKER, size=1))
    )
