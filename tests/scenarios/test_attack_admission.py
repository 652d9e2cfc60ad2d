"""A genuine, freshly booted machine asks for what is not its own, over a real channel: no ticket.

What it gets instead of a ticket is every finding; the log tells of it, and no slot, name, disk or
lease is taken. Its own place is given to it afterwards: the control case of each.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.exceptions import GRPCError

from constellation.kube.join_log import Kind
from tests.fakes.join_world import Chip, channel_to, request_of
from tests.fakes.members import asks
from tests.scenarios.test_join_service import ALL, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.providers.protocols import Instance
    from constellation.rpc.stubs import join_pb2
    from tests.scenarios.test_join_service import Cluster

WORKER, OTHER, CONTROL_PLANE = ALL[0], ALL[1], ALL[2]
FIRST = "127.0.0.1"
"""Address of the control plane that runs."""


async def ask(cluster: Cluster, instance: Instance, **changes: Any) -> join_pb2.JoinTicket:
    """Join as `instance`, with other words in the request."""
    chip = Chip(name=instance.instance_id)
    async with channel_to(cluster.port, chip, purpose="join-client") as (_, stub):
        facts = dataclasses.replace(asks(instance), **changes)
        return await stub.Join(request_of(facts), timeout=10)


def other_address(cluster: Cluster, address: str) -> None:
    """Let the provider say that the worker has an address."""
    cluster.provider.instances = tuple(
        dataclasses.replace(i, address=address) if i is WORKER else i for i in ALL
    )


CASES: dict[str, tuple[dict[str, Any], Callable[[Cluster], None], str]] = {
    "another role": ({"role": "control-plane"}, lambda _: None, "role"),
    "another machine's name": ({"instance_id": OTHER.instance_id}, lambda _: None, "address"),
    "a control plane's name": ({"instance_id": "cp-0"}, lambda _: None, "lists 0 of it"),
    "a control plane's address": (
        {"address": FIRST},
        lambda cluster: other_address(cluster, FIRST),
        "address",
    ),
    "a control plane's disk": (
        {"disk_uuid": b""},
        lambda _: None,
        "disk",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_machine_gets_nothing_that_is_not_its_own(case: str, tmp_path: Path) -> None:
    changes, prepare, word = CASES[case]
    async with running(tmp_path) as cluster:
        if "disk_uuid" in changes:
            changes = {"disk_uuid": cluster.ledger.membership.nodes[0].disk_uuid}
        prepare(cluster)
        with pytest.raises(GRPCError, match=word):
            await ask(cluster, WORKER, **changes)
        for _ in range(100):
            if Kind.REFUSED in cluster.kinds():
                break
            await asyncio.sleep(0.02)
        assert Kind.REFUSED in cluster.kinds()
        assert Kind.RESERVED not in cluster.kinds()
        assert not cluster.ledger.membership.reservations
        cluster.provider.instances = ALL
        assert (await ask(cluster, WORKER)).node_name == "worker-default-0"


async def test_without_a_free_slot_nobody_gets_a_place(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        third = dataclasses.replace(WORKER, instance_id="w-9", address="10.42.2.99")
        cluster.provider.instances = (*ALL, third)
        for instance in (WORKER, OTHER):
            await ask(cluster, instance)
        with pytest.raises(GRPCError, match="slot"):
            await ask(cluster, third)
        names = {r.member.name for r in cluster.ledger.membership.reservations}
        assert names == {"worker-default-0", "worker-default-1"}
        again = await ask(cluster, WORKER)
        assert again.node_name == "worker-default-0", "the same machine has the same place"
