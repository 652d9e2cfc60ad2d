"""A node is dead after many looks over enough time, and never because nobody looked."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from constellation.kube.rollout import Health
from constellation.services.operator.health import (
    DEAD_LOOKS,
    DEAD_S,
    GAP_S,
    GONE_S,
    Memory,
    remember,
    views,
)
from tests.fakes.rollout_world import NEW_IMAGE, OLD_IMAGE, RolloutWorld, policy

if TYPE_CHECKING:
    from constellation.services.operator.facts import Facts

WORLD = RolloutWorld.running(control_planes=3, workers=2)
WELL = asyncio.run(WORLD.look())
WORKER, PLANE = "worker-default-0", "control-plane-default-2"


def unready(name: str) -> Facts:
    nodes = tuple(dataclasses.replace(n, ready=False) if n.name == name else n for n in WELL.nodes)
    return dataclasses.replace(WELL, nodes=nodes)


def unlisted(facts: Facts, *names: str) -> Facts:
    gone = {m.instance_id for m in facts.membership.nodes if m.name in names}
    listed = tuple(i for i in facts.instances if i.instance_id not in gone)
    return dataclasses.replace(facts, instances=listed)


def health(facts: Facts, name: str, *, looks: int, every_s: float) -> Health:
    memory: Memory | None = None
    for look in range(looks):
        memory = remember(memory, facts, now_s=look * every_s)
    assert memory is not None
    return next(n.health for n in views(facts, memory) if n.name == name)


def test_a_node_that_is_not_ready_is_dead_after_its_looks_and_its_time_not_before() -> None:
    enough = int(DEAD_S / 5) + 1
    assert health(unready(WORKER), WORKER, looks=enough, every_s=5) is Health.DEAD
    assert health(unready(WORKER), WORKER, looks=enough - 1, every_s=5) is Health.NOT_READY
    few = DEAD_LOOKS - 1
    assert few * (GAP_S - 1) < DEAD_S, "so few looks over so long are a gap"
    assert health(unready(WORKER), WORKER, looks=few, every_s=GAP_S) is Health.NOT_READY


def test_a_machine_that_is_not_listed_counts_faster_and_only_while_it_is_not_listed() -> None:
    gone = unlisted(unready(WORKER), WORKER)
    looks = int(GONE_S / 3) + 1
    assert looks >= DEAD_LOOKS
    assert health(gone, WORKER, looks=looks, every_s=3) is Health.DEAD
    assert health(unready(WORKER), WORKER, looks=looks, every_s=3) is Health.NOT_READY
    memory: Memory | None = None
    for look in range(looks):
        facts = unready(WORKER) if look == looks - 2 else gone
        memory = remember(memory, facts, now_s=look * 3.0)
    assert memory is not None
    assert next(n.health for n in views(gone, memory) if n.name == WORKER) is Health.NOT_READY


def test_a_machine_that_was_listed_while_it_was_being_deleted_is_gone_all_the_same() -> None:
    gone = unlisted(unready(WORKER), WORKER)
    looks = int(GONE_S / 3) + 1
    memory = remember(None, unready(WORKER), now_s=0.0)
    for look in range(1, looks + 1):
        memory = remember(memory, gone, now_s=look * 3.0)
    assert next(n.health for n in views(gone, memory) if n.name == WORKER) is Health.DEAD


def test_a_list_without_the_operators_own_machine_is_not_believed() -> None:
    looks = int(GONE_S / 3) + 1
    nobody = dataclasses.replace(unready(WORKER), instances=())
    assert health(nobody, WORKER, looks=looks, every_s=3) is Health.NOT_READY


def test_a_control_plane_is_ready_only_if_it_serves_and_votes() -> None:
    address = next(n.address for n in WELL.nodes if n.name == PLANE)
    assert health(WELL, PLANE, looks=1, every_s=1) is Health.READY
    silent = {a: v for a, v in WELL.api_servers.items() if a != address}
    facts = dataclasses.replace(WELL, api_servers=silent)
    assert health(facts, PLANE, looks=1, every_s=1) is Health.NOT_READY
    learner = tuple(dataclasses.replace(m, learner=m.address == address) for m in WELL.etcd)
    facts = dataclasses.replace(WELL, etcd=learner)
    assert health(facts, PLANE, looks=1, every_s=1) is Health.NOT_READY


def test_a_control_plane_that_is_off_counts_with_the_version_that_it_had() -> None:
    address = next(n.address for n in WELL.nodes if n.name == PLANE)
    older = dataclasses.replace(WELL, api_servers=dict(WELL.api_servers) | {address: "v1.36.1"})
    silent = {a: v for a, v in WELL.api_servers.items() if a != address}
    memory = remember(None, older, now_s=0.0)
    memory = remember(memory, dataclasses.replace(WELL, api_servers=silent), now_s=1.0)
    view = next(n for n in views(WELL, memory) if n.name == PLANE)
    assert view.api_server == "v1.36.1"


@given(st.lists(st.floats(GAP_S + 0.1, 1e6), min_size=1, max_size=60))
def test_looks_that_are_too_far_apart_never_make_a_node_dead(gaps: list[float]) -> None:
    memory: Memory | None = None
    now_s = 0.0
    for gap in gaps:
        memory = remember(memory, unready(WORKER), now_s=now_s)
        now_s += gap
    assert memory is not None
    shown = next(n.health for n in views(unready(WORKER), memory) if n.name == WORKER)
    assert shown is Health.NOT_READY


@given(st.lists(st.booleans(), max_size=200), st.floats(0.5, 5.0))
def test_who_was_ready_within_the_time_is_not_dead(ready: list[bool], every_s: float) -> None:
    memory: Memory | None = None
    now_s, last_ready_s = 0.0, 0.0
    for well in ready:
        facts = WELL if well else unready(WORKER)
        memory = remember(memory, facts, now_s=now_s)
        last_ready_s = now_s if well else last_ready_s
        view = next(n for n in views(facts, memory) if n.name == WORKER)
        assert (view.health is Health.READY) is well
        if view.health is Health.DEAD:
            assert now_s - last_ready_s >= DEAD_S
        now_s += every_s


def test_the_image_is_that_of_the_record_and_the_first_nodes_the_oldest() -> None:
    both = policy(serial=2, images=(NEW_IMAGE, OLD_IMAGE), kubernetes="v1.36.2")
    facts = dataclasses.replace(WELL, policy=both)
    nodes = tuple(
        dataclasses.replace(m, image=b"" if m.name == "control-plane-default-0" else NEW_IMAGE)
        for m in WELL.membership.nodes
    )
    facts = dataclasses.replace(facts, membership=dataclasses.replace(WELL.membership, nodes=nodes))
    images = {n.name: n.image for n in views(facts, remember(None, facts, now_s=0))}
    assert images.pop("control-plane-default-0") == OLD_IMAGE.hex()
    assert set(images.values()) == {NEW_IMAGE.hex()}


def test_a_machine_of_a_group_that_the_cluster_does_not_have_is_not_looked_at() -> None:
    (first, *_) = WELL.instances
    stranger = dataclasses.replace(first, instance_id="i-99", group="tampered")
    newcomer = dataclasses.replace(stranger, instance_id="i-98", group=first.group)
    facts = dataclasses.replace(WELL, instances=(*WELL.instances, stranger, newcomer))
    names = {n.name for n in views(facts, remember(None, facts, now_s=0.0))}
    assert "i-98" in names
    assert "i-99" not in names
