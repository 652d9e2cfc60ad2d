"""A cloud that waits for it is told that a machine was set up, until it believes it."""

from __future__ import annotations

import pytest

from constellation.base.errors import Unavailable
from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.select import awaits
from constellation.services.diskmapper.ready import report_ready
from tests.fakes.arm import FakeAzure
from tests.fakes.wire_server import INSTANCE


def told(azure: FakeAzure) -> AzureMetadata:
    return AzureMetadata(wire_server_url=azure.wire.url)


async def test_a_refused_report_is_made_anew_until_it_is_taken() -> None:
    async with FakeAzure().serving() as azure:
        azure.wire.moves = 2
        await report_ready(told(azure), within_s=10, pause_s=0.001)
        assert azure.wire.reports == [INSTANCE]
        assert azure.wire.count("POST", "/machine") == 3


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 503])
async def test_no_refusal_is_the_last_word(status: int) -> None:
    async with FakeAzure().serving() as azure:
        azure.wire.fail = [status, status]
        await report_ready(told(azure), within_s=10, pause_s=0.001)
        assert azure.wire.reports == [INSTANCE]


async def test_a_hostile_goal_state_is_asked_for_again_and_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeAzure().serving() as azure:
        azure.wire.goal_state = b"<GoalState/>"
        with pytest.raises(Unavailable, match=r"goal state/Incarnation: missing"):
            await report_ready(told(azure), within_s=0.05, pause_s=0.01)
        assert azure.wire.count("GET", "/machine") > 1
        assert not azure.wire.reports
    assert {r.getMessage() for r in caplog.records} >= {"the cloud took no report"}


def test_azure_waits_for_a_report_and_nobody_else() -> None:
    assert [p for p in ("local", "aws", "azure", "gcp") if awaits(p) is not None] == ["azure"]


async def test_where_nobody_waits_nothing_is_said() -> None:
    await report_ready(None)
