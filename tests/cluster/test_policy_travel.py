"""A new cluster policy on a real 3+2 cluster: given to one control plane, obeyed by all."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constellation.base.errors import Conflict, Unavailable
from constellation.cluster.context import Context
from constellation.cluster.policy_hand_over import hand_over, obeyed_policies
from constellation.cluster.secrets import read_secrets
from constellation.config.schema import Config, NodeGroup
from constellation.config.state import State, read_state
from constellation.config.workspace import Workspace as Files
from constellation.providers.local.infrastructure import LocalInfrastructure
from constellation.providers.protocols import Role
from constellation.trust.cluster_policy import (
    SignedPolicy,
    parse_policy,
    parse_signed_policy,
    sign_policy,
)
from tests.cluster.conftest import eventually

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


def state_of(ha: Workspace) -> State:
    state = read_state(Files(folder=ha.folder).state)
    assert state is not None
    return state


def context(ha: Workspace, *, wait_s: float) -> Context:
    return Context(
        workspace=Files(folder=ha.folder),
        config=Config(
            name="test",
            node_groups={"control_plane_default": NodeGroup(role=Role.CONTROL_PLANE, size=3)},
        ),
        supplies=None,  # type: ignore[arg-type] # nothing is made here
        infrastructure=LocalInfrastructure,
        owned=tuple,
        list_nodes=None,  # type: ignore[arg-type] # Kubernetes is not asked
        now=lambda: datetime.now(UTC),
        report=lambda _: None,
        wait_s=wait_s,
    )


def next_policy(ha: Workspace) -> SignedPolicy:
    state = state_of(ha)
    assert state.policy is not None
    policy = parse_policy(state.policy.policy)
    owner = read_secrets(Files(folder=ha.folder), cluster_id=state.cluster_id)
    return sign_policy(dataclasses.replace(policy, serial=policy.serial + 1), owner.owner_key)


def give(ha: Workspace, signed: SignedPolicy, *, wait_s: float = 30) -> None:
    asyncio.run(hand_over(context(ha, wait_s=wait_s), state_of(ha), signed))


def serials(ha: Workspace) -> dict[str, int]:
    obeyed = asyncio.run(obeyed_policies(context(ha, wait_s=5), state_of(ha)))
    return {o.node_name: o.serial for o in obeyed}


def kept_serial(ha: Workspace, instance_id: str) -> int:
    """Give the serial on a node's disk, 0 before there is one: asking JoinServices tells them."""
    pid = next(
        n.pid
        for n in asyncio.run(LocalInfrastructure(ha.uid).nodes())
        if n.instance_id == instance_id
    )
    try:
        data = Path(f"/proc/{pid}/root/var/lib/constellation/policy/policy.json").read_bytes()
    except OSError:
        return 0
    return parse_policy(parse_signed_policy(data).policy).serial


def test_a_new_policy_is_obeyed_by_three_control_planes(ha: Workspace) -> None:
    assert eventually(lambda: sorted(serials(ha).values()) == [1, 1, 1], seconds=120)
    signed = next_policy(ha)
    give(ha, signed)
    assert sorted(serials(ha).values()) == [2, 2, 2]
    other = dataclasses.replace(parse_policy(signed.policy), services_bundle=bytes(32))
    owner = read_secrets(Files(folder=ha.folder), cluster_id=other.cluster_id)
    with pytest.raises(Conflict, match="another one with serial"):
        give(ha, sign_policy(other, owner.owner_key))


def test_a_control_plane_that_was_off_catches_up(ha: Workspace) -> None:
    cloud = LocalInfrastructure(ha.uid)
    machines = asyncio.run(cloud.nodes())
    victim = max(m.instance_id for m in machines if m.role == Role.CONTROL_PLANE)
    asyncio.run(cloud.power(victim, "kill"))
    signed = next_policy(ha)
    serial = parse_policy(signed.policy).serial
    with pytest.raises(Unavailable, match="is not obeyed yet"):
        give(ha, signed, wait_s=0)
    assert sorted(serials(ha).values()) == [0, serial, serial]
    asyncio.run(cloud.power(victim, "on"))
    assert eventually(lambda: kept_serial(ha, victim) == serial, seconds=120)
    assert eventually(lambda: set(serials(ha).values()) == {serial}, seconds=30)
    give(ha, signed)
