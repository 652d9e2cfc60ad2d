"""Where a cloud's groups lie, and what is put into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Unavailable
from constellation.providers.local.daemon import kernel, spawn
from constellation.providers.local.daemon.cgroups import Cgroups

if TYPE_CHECKING:
    from pathlib import Path

SCOPE = "system.slice/constellation-mini.scope"


def groups(tree: Path, within: str) -> Cgroups:
    return Cgroups(version=2, trees=(tree,), within=within, name="constellation-mini")


def test_groups_lie_in_the_scope_that_the_host_s_systemd_gave(tmp_path: Path) -> None:
    (folder,) = groups(tmp_path, SCOPE).folders("node")
    assert folder == tmp_path / SCOPE / "constellation-mini/node"


def test_nothing_is_made_beside_a_scope_that_is_not_there(tmp_path: Path) -> None:
    ours = groups(tmp_path, SCOPE)
    assert not ours.given()
    with pytest.raises(Unavailable, match=r"there is no system\.slice/constellation-mini\.scope"):
        ours.ensure("node")
    assert not list(tmp_path.iterdir())


def test_controllers_are_handed_down_as_far_as_the_parts(tmp_path: Path) -> None:
    ours = groups(tmp_path, SCOPE)
    levels = (tmp_path / SCOPE, tmp_path / SCOPE / "constellation-mini")
    for level in levels:
        level.mkdir(parents=True)
        (level / "cgroup.controllers").write_text("cpu memory\n")
    ours.ensure("node")
    for level in levels:
        assert (level / "cgroup.subtree_control").read_text() in ("+cpu", "+memory")
    assert (levels[1] / "node").is_dir()


def test_a_group_with_processes_hands_nothing_down(tmp_path: Path) -> None:
    # the kernel would take +cpu, and then let no process into the groups below
    ours = groups(tmp_path, SCOPE)
    scope = tmp_path / SCOPE
    for level in (scope, scope / "constellation-mini"):
        level.mkdir(parents=True)
        (level / "cgroup.controllers").write_text("cpu memory\n")
        (level / "cgroup.type").write_text("domain\n")
        (level / "cgroup.procs").write_text("")
    (scope / "cgroup.procs").write_text("4711\n")
    ours.ensure("daemon")
    assert not (scope / "cgroup.subtree_control").exists()
    (scope / "cgroup.procs").write_text("")
    ours.ensure("daemon")
    assert (scope / "cgroup.subtree_control").exists()


async def test_who_keeps_a_program_is_in_another_group_and_notes_its_end(tmp_path: Path) -> None:
    # groups of plain folders: a process that enters one leaves a 0 there
    ours = groups(tmp_path, "")
    for part in ("node", "node.keeper"):
        ours.folders(part)[0].mkdir(parents=True)
    seen = tmp_path / "seen"
    count = f"cat {tmp_path}/constellation-mini/*/cgroup.procs | wc -l >{seen}; exit 133"
    process = spawn.start(
        ("/bin/sh", "-c", count),
        cgroups=ours,
        part="node",
        log=tmp_path / "log",
        exit_file=tmp_path / "exit",
        keeper_part="node.keeper",
    )
    assert await kernel.until(lambda: not kernel.start_time(process.pid), deadline_s=10)
    assert (tmp_path / "exit").read_text() == "133\n"
    assert (tmp_path / "constellation-mini/node.keeper/cgroup.procs").read_text() == "0\n"
    assert (tmp_path / "constellation-mini/node/cgroup.procs").read_text() == "0\n"
    assert seen.read_text().strip() == "2"


async def test_a_program_that_cannot_enter_its_group_is_not_started(tmp_path: Path) -> None:
    ours = groups(tmp_path, "")
    ours.folders("node.keeper")[0].mkdir(parents=True)
    started = tmp_path / "started"
    process = spawn.start(
        ("/bin/sh", "-c", f"echo >{started}"),
        cgroups=ours,
        part="node",
        log=tmp_path / "log",
        exit_file=tmp_path / "exit",
        keeper_part="node.keeper",
    )
    assert await kernel.until(lambda: not kernel.start_time(process.pid), deadline_s=10)
    assert (tmp_path / "exit").read_text() == "125\n"
    assert not started.exists()
