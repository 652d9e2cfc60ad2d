"""The machine's inotify limit is raised for clouds, and what it was comes back after the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.providers.local.daemon.inotify import ENOUGH, give_back, raise_limit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    path = tmp_path / "max_user_instances"
    path.write_text("128\n")
    return path


def test_the_old_value_comes_back_with_the_end_of_the_last_cloud(
    tmp_path: Path, limit: Path
) -> None:
    run = tmp_path / "run"
    for cloud in ("a", "b"):
        raise_limit(run_root=run, limit=limit)
        (run / cloud).mkdir()
    assert int(limit.read_text()) == ENOUGH
    (run / "a").rmdir()
    give_back(run_root=run, limit=limit)
    assert int(limit.read_text()) == ENOUGH
    (run / "b").rmdir()
    give_back(run_root=run, limit=limit)
    assert int(limit.read_text()) == 128
    assert not list(run.iterdir())


def test_a_machine_with_enough_is_left_alone(tmp_path: Path, limit: Path) -> None:
    limit.write_text("65536\n")
    raise_limit(run_root=tmp_path / "run", limit=limit)
    give_back(run_root=tmp_path, limit=limit)
    assert limit.read_text() == "65536\n"


def test_a_value_that_somebody_set_meanwhile_stays(tmp_path: Path, limit: Path) -> None:
    raise_limit(run_root=tmp_path / "run", limit=limit)
    limit.write_text("999\n")
    give_back(run_root=tmp_path / "run", limit=limit)
    assert limit.read_text() == "999\n"
