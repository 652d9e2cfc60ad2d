"""Create, init, verify and terminate against a node with a real TPM and real attested TLS."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import stat
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, Rejected, Unavailable, UserError
from constellation.cluster.apply import create, initialise, make_plan
from constellation.cluster.mini import up
from constellation.cluster.plan import Step
from constellation.cluster.steps.init import choose
from constellation.cluster.terminate import terminate
from constellation.cluster.verify import verify
from constellation.config.schema import Autoscaling, NodeGroup
from constellation.config.state import read_state, write_state
from constellation.kube.rollout import Bounds
from constellation.providers.protocols import Role
from constellation.services.bootstrapper import first_node
from constellation.trust.cluster_policy import parse_policy
from tests.fakes.owner_world import OwnerWorld, owner_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[OwnerWorld]:
    async with owner_world(tmp_path) as made:
        yield made


async def test_from_nothing_to_a_verified_cluster(world: OwnerWorld) -> None:
    done = await up(world.context())
    assert not done.already
    (node,) = done.verified
    assert node.error is None
    assert node.node_name == "control-plane-0"
    assert node.result is not None
    assert node.result.warnings
    assert world.node.secrets_received == 1
    assert world.workspace.kubectl.read_bytes() == b"kubectl"
    assert "https://127.0.0.1:6443" in world.workspace.kubeconfig.read_text()
    assert (await up(world.context())).already


async def test_secrets_are_readable_for_the_owner_only(world: OwnerWorld) -> None:
    await up(world.context())
    for path in (world.workspace.master_secret, world.workspace.kubeconfig):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_another_image_gets_no_secret_and_the_register_is_named(tmp_path: Path) -> None:
    other = hashlib.sha256(b"another image").digest()
    async with owner_world(tmp_path, image=other) as world:
        await create(world.context())
        with pytest.raises(Rejected, match="pcr4"):
            await initialise(world.context())
        assert world.node.secrets_received == 0
        state = read_state(world.workspace.state)
        assert state is not None
        assert state.init is None


@pytest.mark.parametrize("where", ["policy", "finished"])
async def test_an_init_that_broke_off_goes_on_and_sends_no_secret_twice(
    world: OwnerWorld, where: str
) -> None:
    await create(world.context())
    world.node.die_before = where
    with pytest.raises(Unavailable):
        await initialise(world.context())
    await initialise(world.context())
    assert world.node.secrets_received == 1


async def test_an_interrupted_init_goes_on(world: OwnerWorld) -> None:
    await create(world.context())
    running = asyncio.create_task(initialise(world.context()))
    async with asyncio.timeout(30):
        while not _has_policy(world):  # noqa: ASYNC110 - the state file is what a user has
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await initialise(world.context())
    assert world.node.secrets_received == 1


async def test_bounds_of_the_conf_go_with_init_and_the_owner_signs_as_many_places(
    world: OwnerWorld,
) -> None:
    world.workers = NodeGroup(
        role=Role.WORKER, size=2, autoscaling=Autoscaling.model_validate({"min": 1, "max": 4})
    )
    await create(world.context())
    with pytest.raises(
        Unavailable, match="1 more to join"
    ):  # min, and no worker's machine is there
        await initialise(world.context())
    assert world.node.plan is not None
    (workers,) = first_node.scaled_groups(world.node.plan)
    assert (workers.name, workers.size, workers.bounds) == (
        "worker_default",
        2,
        Bounds(least=1, most=4),
    )
    state = read_state(world.workspace.state)
    assert state is not None
    assert state.policy is not None
    policy = parse_policy(state.policy.policy)
    assert policy.serial == 1
    assert policy.slots == {"control_plane_default": 1, "worker_default": 4}


def _has_policy(world: OwnerWorld) -> bool:
    state = read_state(world.workspace.state)
    return state is not None and state.policy is not None


async def test_an_init_goes_to_no_other_machine_than_the_chosen_one(tmp_path: Path) -> None:
    async with owner_world(tmp_path / "first") as first:
        await create(first.context())
        first.node.die_before = "policy"
        with pytest.raises(Unavailable):
            await initialise(first.context())
        async with owner_world(tmp_path / "second") as second:
            # the same name, another machine: what a provider could put in its place
            state = read_state(first.workspace.state)
            assert state is not None
            second.node.ca = first.node.ca
            await second.node.power_on(state.node_document)
            first.cloud.instance = second.cloud.instance
            (first.workspace.state).write_bytes(
                first.workspace.state.read_bytes().replace(
                    state.infrastructure.instances[0].init_endpoint.encode(),  # type: ignore[union-attr] # created above
                    second.cloud.instance.init_endpoint.encode(),
                )
            )
            with pytest.raises(Conflict, match="another machine"):
                await initialise(first.context())
            assert second.node.secrets_received == 0


async def test_a_lost_kubeconfig_does_not_make_a_second_cluster(world: OwnerWorld) -> None:
    """The node that made it may have been replaced since: `--abandon` would be a bad advice."""
    await up(world.context())
    world.workspace.kubeconfig.unlink()
    state = read_state(world.workspace.state)
    assert state is not None
    assert state.infrastructure is not None
    came = dataclasses.replace(world.cloud.instance, instance_id="replaced")
    machines = dataclasses.replace(state.infrastructure, instances=(came,))
    state = dataclasses.replace(state, infrastructure=machines)
    write_state(world.workspace.state, state)
    with pytest.raises(Conflict, match="initialised, and the node that made") as told:
        await initialise(world.context())
    gone = dataclasses.replace(state, cluster_ca=b"")
    with pytest.raises(Conflict, match="which an earlier init chose, is gone") as other:
        choose(gone)
    assert "constellation-admin.conf" in told.value.hint
    assert "--abandon" in other.value.hint, "the control case: nothing runs yet"


async def test_a_wrong_cluster_id_is_refused_by_verify(world: OwnerWorld) -> None:
    done = await up(world.context())
    (node,) = await verify(world.context(), done.state, cluster_id=bytes(32), deadline_s=1)
    assert isinstance(node.error, Rejected)
    assert "pcr15" in str(node.error)


async def test_init_without_create_says_what_to_do(world: OwnerWorld) -> None:
    with pytest.raises(Conflict) as caught:
        await initialise(world.context())
    assert "constellation create" in caught.value.hint


async def test_a_plan_shrinks_as_steps_are_done(world: OwnerWorld) -> None:
    before = [p.step for p in await make_plan(world.context())]
    later = (Step.SIZES, Step.ACCESS, Step.SOURCES, Step.INTEGRATION)
    assert before == [s for s in Step if s not in later], "of a cluster that runs"
    await create(world.context())
    assert [p.step for p in await make_plan(world.context())] == [Step.INIT, Step.READY]
    await initialise(world.context())
    assert not await make_plan(world.context())


async def test_waiting_for_nodes_names_what_is_missing(world: OwnerWorld) -> None:
    world.ready = False
    await create(world.context())
    with pytest.raises(Unavailable, match="control-plane-0 \\(starting\\)"):
        await initialise(world.context())


async def test_terminate_keeps_configuration_and_master_secret(world: OwnerWorld) -> None:
    await up(world.context())
    done = await terminate(world.context())
    assert world.cloud.destroyed
    assert done.kept == (world.workspace.master_secret,)
    assert not world.workspace.state.exists()
    assert not world.workspace.kubeconfig.exists()


@pytest.mark.parametrize("damage", ["", "version: 1\nname: te", "\x00", "- 1"])
async def test_machines_go_also_when_the_state_file_is_damaged(
    world: OwnerWorld, damage: str
) -> None:
    await create(world.context())
    world.workspace.state.write_text(damage)
    world.owned = ("test-abc123",)
    done = await terminate(world.context())
    assert world.cloud.destroyed
    assert done.removed[0] == "machines, disks and network of test-abc123"
    assert not world.workspace.state.exists()


async def test_without_state_file_only_marked_machines_go(world: OwnerWorld) -> None:
    await create(world.context())
    world.workspace.state.unlink()
    done = await terminate(world.context())
    assert not world.cloud.destroyed
    assert done.removed == ()


async def test_a_master_secret_that_others_can_read_is_refused(world: OwnerWorld) -> None:
    await create(world.context())
    world.workspace.master_secret.chmod(0o644)
    with pytest.raises(UserError, match="expected 0600"):
        await initialise(world.context())


async def test_the_master_secret_of_another_cluster_is_a_conflict(
    world: OwnerWorld, tmp_path: Path
) -> None:
    await create(world.context())
    world.workspace.master_secret.rename(tmp_path / "kept")
    async with owner_world(tmp_path / "other") as other:
        await create(other.context())
        other.workspace.master_secret.rename(world.workspace.master_secret)
    with pytest.raises(Conflict, match="belongs to cluster"):
        await initialise(world.context())
