from __future__ import annotations

import os
from pathlib import Path

import pytest

from constellation.base.errors import Conflict, UserError
from constellation.providers.local import preflight
from constellation.providers.local.daemon import address, kernel, launch, nspawn
from constellation.providers.local.daemon.cgroups import NODE_DEVICES
from constellation.providers.local.daemon.layout import Layout


def _arguments() -> tuple[str, ...]:
    return nspawn.arguments(
        root=Path("/root"),
        instance_id="mini-workers-0",
        netns=Path("/run/netns/x"),
        host=Path("/host"),
        artifacts=Path("/artifacts"),
        init=nspawn.command_line(1),
    )


def test_what_is_measured_is_what_init_gets() -> None:
    assert " ".join(_arguments()).endswith("--boot " + nspawn.command_line(1))


def test_a_v2_host_needs_no_further_words() -> None:
    assert nspawn.command_line(2) == nspawn.COMMAND_LINE
    assert nspawn.command_line(1) == f"{nspawn.COMMAND_LINE} {nspawn.LEGACY_ARGUMENTS}"


def test_a_node_cannot_write_what_its_machine_gives_it() -> None:
    assert "--bind-ro=/host:/run/constellation/host" in _arguments()
    assert not [a for a in _arguments() if a.startswith("--bind=/host")]


def test_a_node_gets_no_loop_control_and_no_disk() -> None:
    assert not [a for a in _arguments() if "loop" in a]
    blocks = [rule for rule in NODE_DEVICES if rule.startswith("b")]
    assert blocks == ["b *:* m"]


@pytest.mark.parametrize("id_", ["", "-a", "a-", "A", "a/b", "..", "x" * 21])
def test_an_id_that_does_not_fit_is_refused(id_: str) -> None:
    with pytest.raises(UserError, match="cannot name a local cloud"):
        Layout.of(id_)


def test_socket_paths_fit_into_an_address() -> None:
    layout = Layout.of("x" * 20)
    instance = f"{layout.id}-{'g' * 30}-999"
    assert len(str(layout.node_run(instance) / "ctl.sock")) < 108
    assert len(str(layout.host_folder(instance) / "tpm.sock")) < 108


def test_the_next_cloud_gets_the_next_free_address() -> None:
    assert address.choose(frozenset({"127.0.0.1"}), lambda a: a != "127.0.0.2") == "127.0.0.3"


def test_no_free_address_is_said() -> None:
    with pytest.raises(Conflict, match="no loopback address"):
        address.choose(frozenset(), lambda _: False)


def test_a_damaged_record_of_another_cloud_takes_no_address(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_bytes(b"{")
    assert address.taken(tmp_path) == frozenset()


def test_a_process_is_known_by_pid_and_start_time() -> None:
    started = kernel.start_time(os.getpid())
    assert kernel.alive(os.getpid(), started)
    assert not kernel.alive(os.getpid(), started + 1)
    assert not kernel.alive(0, 0)


def test_the_scope_is_the_cloud_s_own_and_given_away() -> None:
    words = launch.scope_command(Layout.of("mini"), ("python", "-m", "x"))
    assert "--scope" in words
    assert "--unit=constellation-mini.scope" in words
    assert "--property=Delegate=yes" in words
    assert words[-3:] == ("python", "-m", "x")


def test_preflight_says_all_or_names_the_problem() -> None:
    good = preflight.Check(name="loop devices")
    bad = preflight.Check(name="tun", problem="no such device", hint="modprobe tun")
    assert preflight.as_json((good,))["ok"] is True
    assert preflight.as_json((good, bad))["ok"] is False
