"""What AWS' own cloud controller manager may do: what it was seen doing, and what is marked."""

from __future__ import annotations

import json
from pathlib import Path

from constellation.providers.aws.controller_calls import CONTROLLER, Held
from constellation.releases import lock as locks
from constellation.releases.clouds import CLOUDS

_KEPT = Path(__file__).resolve().parents[4] / "bench/results/drill-cloud-aws.json"


def test_each_call_of_the_kept_run_is_allowed_and_nothing_is_called_seen_that_was_not() -> None:
    kept = json.loads(_KEPT.read_text())
    assert set(kept["calls"]) == {
        c.permission for c in CONTROLLER if c.seen and c.held != Held.TAGS
    }


def test_the_kept_run_was_one_of_the_locked_program() -> None:
    kept = json.loads(_KEPT.read_text())
    locked = locks.load().clouds["aws"].source
    assert kept["program"] == locked["aws-cloud-controller-manager"].sha256
    name = kept["image"].partition("@")[0].rpartition("/")[2]
    assert f"constellation.internal/cloud/{name}" in {i.reference for i in CLOUDS["aws"].images}


def test_a_permission_stands_once() -> None:
    assert len({c.permission for c in CONTROLLER}) == len(CONTROLLER)
