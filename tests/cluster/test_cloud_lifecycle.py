"""Create, init, verify, join, terminate on each fake cloud, in one process, by real Terraform."""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING

import pytest
from grpclib.exceptions import GRPCError

from constellation.base.errors import Rejected
from constellation.base.secret import Secret
from constellation.cluster.apply import create, initialise
from constellation.cluster.terminate import terminate
from constellation.cluster.verify import verify
from constellation.config.demands import platform_demands
from constellation.config.state import write_state
from constellation.providers.openstack.access import load_access
from constellation.providers.protocols import Role
from constellation.trust import artifact_list
from constellation.trust.cluster_policy import parse_policy
from tests.fakes.aws_world import MISSING, is_possible
from tests.fakes.cloud_life import DEMANDS, CloudLife, cloud_life
from tests.fakes.joining import ask, join_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.config.state import State

pytestmark = [pytest.mark.cluster, pytest.mark.clouds]

# its schemas come from the provider's own program
AWS = pytest.param("aws", marks=pytest.mark.skipif(not is_possible(), reason=MISSING))


@pytest.fixture(params=[AWS, "azure", "gcp", "openstack"])
async def life(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CloudLife]:
    async with cloud_life(request.param, tmp_path, environment=monkeypatch.setenv) as made:
        yield made


async def test_a_cluster_is_made_proven_joined_and_removed(life: CloudLife, tmp_path: Path) -> None:
    state = await create(life.context())
    assert life.exists
    assert state.platform == platform_demands(life.config)
    # the fake cloud's chips have makers of their own
    state = dataclasses.replace(state, platform=DEMANDS)
    write_state(life.workspace.state, state)
    assert life.first.document == state.node_document

    await life.publish(state)
    assert _way_to_fresh_nodes(life)
    state, _ = await initialise(life.context())
    assert life.first.secrets_received == 1
    assert life.workspace.kubectl.read_bytes() == b"kubectl"
    _fetched(life, state, "first")
    _nothing_holds_the_access(life)
    assert not _way_to_fresh_nodes(life)

    (node,) = await verify(life.context(), state, cluster_id=state.cluster_id, deadline_s=5)
    assert node.error is None

    await _joins(life, state, tmp_path)

    done = await terminate(life.context())
    assert not life.exists
    assert life.workspace.master_secret in done.kept


async def test_a_node_with_another_document_gets_nothing(life: CloudLife) -> None:
    state = await create(life.context())
    write_state(life.workspace.state, dataclasses.replace(state, platform=DEMANDS))
    # somebody with the cloud's account starts it again with a document of theirs
    await life.first.power_on(state.node_document.replace(b'"minimum', b' "minimum'))
    with pytest.raises(Rejected, match=r"pcr8|PCR 8"):
        await initialise(life.context())
    assert life.first.secrets_received == 0
    await terminate(life.context())
    assert not life.exists


def _fetched(life: CloudLife, state: State, node: str) -> None:
    """A node has every file of the list, from the source that the owner's policy names."""
    node_ = getattr(life, node)
    assert node_.fetches is not None
    kept = {path.name for path in (node_.fetches / "sha256").iterdir()}
    assert kept == {a.sha256 for a in artifact_list.parse(state.artifact_list).artifacts}


def _nothing_holds_the_access(life: CloudLife) -> None:
    """Control planes get it by attested TLS alone: no user data, no state, no file of Terraform."""
    if not life.first.access:
        assert life.config.provider.openstack is None
        return
    secret = load_access(Secret(life.first.access)).credential_secret.reveal()
    forms = (secret, base64.b64encode(secret))
    assert forms[1] in life.first.access
    for path in life.workspace.folder.rglob("*"):
        if path.is_file() and path.name != "clouds.yaml":
            assert not [form for form in forms if form in path.read_bytes()], path
    for server in life.fake.servers.values():
        shown = server.user_data + str(server.metadata).encode()
        assert not [form for form in forms if form in shown]


def _way_to_fresh_nodes(life: CloudLife) -> list[str]:
    """Name resources that lead to port 9000."""
    names = (str(r.values.get("name")) for r in life.provider.resources.values())
    return [name for name in names if name == "init" or name.endswith("-init")]


async def _joins(life: CloudLife, state: State, folder: Path) -> None:
    """Let the second machine join by a JoinService that asks the cloud with its own client."""
    life.keep_access(folder)
    listed = await life.metadata(life.instance_of(Role.CONTROL_PLANE)).peers()
    worker = next(i for i in listed if i.role is Role.WORKER)
    assert await life.metadata(worker.instance_id).self_() == worker
    provider = life.metadata(life.instance_of(Role.CONTROL_PLANE))
    async with join_service(life, state, folder / "control-plane", provider=provider) as port:
        with pytest.raises(GRPCError, match="instance id"):
            await ask(life, state, port, dataclasses.replace(worker, instance_id="another"))
        ticket = await ask(life, state, port, worker)
        assert ticket.group == "worker_default"
        assert ticket.disk_key
        sources = parse_policy(state.policy.policy).artifact_sources if state.policy else ()
        await life.second.fetch(ticket.artifact_list, sources)
        _fetched(life, state, "second")
        # given to the cluster: no second ticket without a new boot
        await life.second.give(state.cluster_id)
        with pytest.raises(Rejected, match=r"PCR 15|pcr15"):
            await ask(life, state, port, worker)
