"""Components of clouds may do what they were seen to do: tables against kept runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.providers.azure import component_calls as azure
from constellation.providers.gcp import component_calls as gcp
from constellation.releases import lock as locks
from constellation.releases.clouds import CLOUDS
from tests.fakes.arm_store import permission_of

if TYPE_CHECKING:
    from constellation.providers.calls import Call

_RESULTS = Path(__file__).resolve().parents[3] / "bench/results"
_RUNS = {
    "azure": ("azure-cloud-controller-manager", azure.CONTROLLER),
    "azure-disk": ("azuredisk-csi-driver", azure.DRIVER),
    "gcp": ("gce-pd-csi-driver", gcp.DRIVER),
}


def _permissions(calls: tuple[Call, ...], *, linked: bool) -> set[str]:
    more = {p for c in calls for p in c.linked} if linked else set()
    return {c.permission for c in calls} | more


@pytest.mark.parametrize("run", _RUNS)
def test_what_is_allowed_is_what_was_seen(run: str) -> None:
    _, calls = _RUNS[run]
    kept = set(json.loads((_RESULTS / f"drill-cloud-{run}.json").read_text())["permissions"])
    # what a body names asks for a permission more, which a fake of ours may not know
    assert _permissions(calls, linked=False) <= kept
    assert kept <= _permissions(calls, linked=True)


@pytest.mark.parametrize("run", _RUNS)
def test_a_kept_run_was_one_of_the_locked_program(run: str) -> None:
    name, _ = _RUNS[run]
    kept = json.loads((_RESULTS / f"drill-cloud-{run}.json").read_text())
    provider = run.partition("-")[0]
    assert kept["program"] == locks.load().clouds[provider].source[name].sha256
    tag = kept["image"].partition("@")[0].rpartition("/")[2]
    assert f"constellation.internal/cloud/{tag}" in {i.reference for i in CLOUDS[provider].images}


@pytest.mark.parametrize("calls", [azure.CONTROLLER, azure.DRIVER])
def test_an_action_is_that_of_its_call(calls: tuple[Call, ...]) -> None:
    for call in calls:
        assert permission_of(call.method, call.path) == call.permission


def test_only_the_zones_are_the_subscriptions() -> None:
    (call,) = azure.OF_SUBSCRIPTION
    assert call.permission == "Microsoft.Resources/subscriptions/providers/read"
    assert "resourceGroups" not in call.path
