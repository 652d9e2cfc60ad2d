"""What a machine lacks is said at once, all of it, with what to do."""

from __future__ import annotations

import json

import pytest

from constellation.base.errors import Conflict, Unavailable
from constellation.cli.machine_check import (
    Fault,
    Room,
    disk_left,
    faults_of,
    refuse,
    room_faults,
    shortage,
)
from constellation.config.providers.baremetal import BaremetalProvider
from constellation.config.schema import ArtifactSource, Config, LocalProvider, NodeGroup, Provider
from constellation.providers.protocols import Role

GB = 1000**3
PLENTY = Room(memory=64 * GB, disk=500 * GB, cache=500 * GB)


def _names(faults: tuple[Fault, ...]) -> list[str]:
    return [fault.name for fault in faults]


def test_plenty_is_enough() -> None:
    assert room_faults(Config(), PLENTY, cached=False) == ()


def test_three_and_two_nodes_need_four_gigabytes() -> None:
    groups = {
        "planes": NodeGroup(role=Role.CONTROL_PLANE, size=3),
        "workers": NodeGroup(role=Role.WORKER, size=2),
    }
    config = Config(node_groups=groups)
    assert room_faults(config, Room(memory=4 * GB, disk=5 * GB, cache=0), cached=True) == ()
    little = Room(memory=4 * GB - 1, disk=5 * GB - 1, cache=0)
    found = room_faults(config, little, cached=True)
    assert _names(found) == ["memory", "disk below /var/lib"]
    assert found[0].problem == "4.0 GB free, 5 nodes need 4.0 GB"
    assert "fewer than 5 nodes" in found[0].hint


@pytest.mark.parametrize(("source", "faults"), [("official", 0), ("source", 1), ("auto", 1)])
def test_building_from_source_needs_more_disk(source: str, faults: int) -> None:
    local = LocalProvider(artifact_source=ArtifactSource(source))
    room = Room(memory=64 * GB, disk=64 * GB, cache=6 * GB)
    found = room_faults(Config(provider=Provider(local=local)), room, cached=False)
    assert len(found) == faults


def test_the_last_gigabyte_is_a_shortage_on_this_machine_only() -> None:
    assert shortage(GB) == ""
    assert shortage(GB - 60_000_000).startswith("free some disk: 0.9 GB are left below /var/lib")
    assert shortage(None) == ""
    assert disk_left(Config())
    elsewhere = Provider(
        local=None, baremetal=BaremetalProvider(hosts={}, endpoint="192.0.2.1:6443")
    )
    assert disk_left(Config.model_construct(provider=elsewhere)) is None


def test_preflight_findings_are_refused_all_at_once() -> None:
    said = {
        "ok": False,
        "checks": [
            {"name": "overlay", "problem": "no such device", "hint": "modprobe overlay"},
            {"name": "loop devices", "problem": "", "hint": "modprobe loop"},
            {"name": "tun", "problem": "no such file", "hint": "modprobe tun"},
        ],
    }
    with pytest.raises(Conflict) as caught:
        refuse(faults_of(json.dumps(said).encode()))
    assert str(caught.value) == (
        "this machine lacks what a cluster needs:\n"
        "  overlay: no such device\n    modprobe overlay\n"
        "  tun: no such file\n    modprobe tun"
    )
    refuse(())


@pytest.mark.parametrize("said", [b"", b"{}", b"[]", b'{"checks": [{}]}'])
def test_a_preflight_that_says_nothing_is_no_consent(said: bytes) -> None:
    with pytest.raises(Unavailable):
        faults_of(said)
