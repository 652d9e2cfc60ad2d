"""When a node of the VMs' cluster counts as Ready, and as in another boot."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.node_steps import is_other_boot, is_ready
from tests.vm.owner_cluster import boots
from tests.vm.wire import addresses


def node(name: str, *, ready: str, boot: str, plane: bool) -> dict[str, Any]:
    labels = {"node-role.kubernetes.io/control-plane": ""} if plane else {}
    info = {
        "bootID": boot,
        "kernelVersion": "6.12",
        "kubeletVersion": "v1.36.2",
        "containerRuntimeVersion": "containerd://2.2.1",
    }
    conditions = [{"type": "MemoryPressure", "status": "False"}]
    conditions.append({"type": "Ready", "status": ready})
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": conditions, "nodeInfo": info},
    }


def listed(*nodes: dict[str, Any]) -> dict[str, Any]:
    return boots(json.loads(json.dumps({"items": nodes})))


def test_a_node_is_ready_by_its_own_kind_and_condition() -> None:
    plane = node("p", ready="True", boot="1", plane=True)
    worker = node("w", ready="Unknown", boot="1", plane=False)
    found = listed(plane, worker)
    assert is_ready(found, control_plane=True)
    assert not is_ready(found, control_plane=False)
    assert not is_ready(listed(), control_plane=True)


def test_what_the_api_last_knew_of_an_earlier_boot_is_not_the_next_one() -> None:
    before = listed(node("p", ready="True", boot="1", plane=True))
    after = listed(node("p", ready="True", boot="2", plane=True))
    assert not is_other_boot(before, before, control_plane=True)
    assert is_other_boot(before, after, control_plane=True)
    assert not is_other_boot(before, listed(), control_plane=True)
    assert not is_other_boot(before, after, control_plane=False), "no such node was there"


def test_machines_have_the_addresses_that_the_router_gives_in_turn() -> None:
    assert addresses(2) == ("10.0.2.15", "10.0.2.16")
