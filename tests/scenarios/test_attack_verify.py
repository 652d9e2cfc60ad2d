"""An attack on `verify`: one genuine node answers in the name of all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import Untrusted
from constellation.cluster.mini import up
from constellation.cluster.verify import verify
from tests.fakes.owner_world import owner_world

if TYPE_CHECKING:
    from pathlib import Path


async def test_one_machine_is_not_taken_for_two(tmp_path: Path) -> None:
    async with owner_world(tmp_path) as world:
        state = (await up(world.context())).state
        assert state.infrastructure is not None
        (first,) = state.infrastructure.instances
        (alone,) = await verify(world.context(), state, cluster_id=None, deadline_s=5)
        assert alone.error is None, "the control case"
        # the cloud lists a second machine and leads every connection to the genuine one
        second = dataclasses.replace(first, instance_id="worker-0", address="10.42.2.10")
        machines = dataclasses.replace(state.infrastructure, instances=(first, second))
        led_astray = dataclasses.replace(state, infrastructure=machines)
        nodes = await verify(world.context(), led_astray, cluster_id=None, deadline_s=5)
    for node in nodes:
        assert isinstance(node.error, Untrusted)
        assert "control-plane-0" in str(node.error)
        assert "worker-0" in str(node.error)
        assert node.result is None
