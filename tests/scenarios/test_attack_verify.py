"""Attacks on `verify`: one genuine node in the name of all, nonces that no quote was made for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError, FormatError, Untrusted
from constellation.cluster.mini import up
from constellation.cluster.present import with_present_machines
from constellation.cluster.verify import verify, verify_machines
from constellation.rpc.stubs.verify_pb2 import Batch, GetEvidenceReply
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
        nodes = await verify_machines(world.context(), led_astray, cluster_id=None, deadline_s=5)
    for node in nodes:
        assert isinstance(node.error, Untrusted)
        assert "control-plane-0" in str(node.error)
        assert "worker-0" in str(node.error)
        assert node.result is None


async def test_every_machine_of_now_is_verified_also_those_that_no_command_saw_come(
    tmp_path: Path,
) -> None:
    async with owner_world(tmp_path) as world:
        state = (await up(world.context())).state
        world.cloud.instance = dataclasses.replace(world.cloud.instance, instance_id="replaced")
        (node,) = await verify(world.context(), state, cluster_id=None, deadline_s=5)
        assert (node.instance_id, node.error) == ("replaced", None)
        again = await up(world.context())
        assert again.already
        assert [n.instance_id for n in again.verified] == ["replaced"]
        world.cloud.destroyed = True  # nobody says: those of the state file
        assert await with_present_machines(world.context(), state) == state


async def test_an_answer_counts_for_a_nonce_that_its_quote_was_made_for_alone(
    tmp_path: Path,
) -> None:
    async with owner_world(tmp_path) as world:
        state = (await up(world.context())).state
        seen: list[GetEvidenceReply] = []

        async def verified() -> ConstellationError | None:
            (node,) = await verify(world.context(), state, cluster_id=None, deadline_s=5)
            assert (node.result is None) == (node.error is not None)
            return node.error

        def watch(reply: GetEvidenceReply) -> GetEvidenceReply:
            seen.append(reply)
            return reply

        world.node.other_nonces = tuple(bytes([n]) * 32 for n in range(100))
        world.node.answers = watch
        assert await verified() is None, "in a batch of 101"
        (before,) = seen
        assert before.batch.size == 101

        def replayed(_: GetEvidenceReply) -> GetEvidenceReply:
            return before

        def another_place(reply: GetEvidenceReply) -> GetEvidenceReply:
            reply.batch.index -= 1
            return reply

        def no_batch(reply: GetEvidenceReply) -> GetEvidenceReply:
            reply.ClearField("batch")
            return reply

        def alone(reply: GetEvidenceReply) -> GetEvidenceReply:
            reply.batch.CopyFrom(Batch(index=0, size=1))
            return reply

        def huge(reply: GetEvidenceReply) -> GetEvidenceReply:
            path = [bytes(32)] * 30
            reply.batch.CopyFrom(Batch(index=0, size=2**30, path=path))
            return reply

        for forge, kind in (
            (replayed, Untrusted),
            (another_place, (Untrusted, FormatError)),
            (no_batch, FormatError),
            (alone, Untrusted),
            (huge, FormatError),
        ):
            world.node.answers = forge
            assert isinstance(await verified(), kind), forge.__name__
        world.node.answers = None
        assert await verified() is None
