"""What AWS' own components may do: what they were seen doing, and what is marked."""

from __future__ import annotations

import json
from pathlib import Path

from constellation.providers.aws.controller_calls import CONTROLLER, Held
from constellation.providers.aws.storage_calls import STORAGE, StorageHeld
from constellation.releases import lock as locks
from constellation.releases.clouds import CLOUDS

_KEPT = Path(__file__).resolve().parents[4] / "bench/results/drill-cloud-aws.json"


def test_each_call_of_the_kept_run_is_allowed_and_nothing_is_called_seen_that_was_not() -> None:
    kept = json.loads(_KEPT.read_text())
    assert set(kept["calls"]) == {
        c.permission for c in CONTROLLER if c.seen and c.held != Held.TAGS
    }


def test_each_call_of_the_kept_run_for_storage_is_allowed_and_seen_means_seen() -> None:
    kept = json.loads(_KEPT.read_text())
    assert set(kept["storage_calls"]) == {
        c.permission for c in STORAGE if c.seen and c.held != StorageHeld.TAGS
    }


def test_the_kept_run_was_one_of_the_locked_programs() -> None:
    kept = json.loads(_KEPT.read_text())
    locked = locks.load().clouds["aws"].source
    recipe = CLOUDS["aws"]
    assert kept["programs"] == {
        name: locked[name].sha256 for module in recipe.modules for name in module.programs
    }
    names = {image.partition("@")[0].rpartition("/")[2] for image in kept["images"]}
    assert names == {image.reference.rpartition("/")[2] for image in recipe.images}


def test_a_permission_stands_once() -> None:
    for table in (CONTROLLER, STORAGE):
        assert len({c.permission for c in table}) == len(table)
