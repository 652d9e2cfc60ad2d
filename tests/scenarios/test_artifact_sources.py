"""Other sources of artifacts reach every control plane in the owner's policy, and nothing else.

JoinServices, TPMs and attested TLS are real.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tuf", reason="this environment is older than requirements.lock")
from constellation.base import clock
from constellation.base.errors import FormatError, Unavailable
from constellation.cluster.current_policy import current_policy
from constellation.cluster.node_sources import follow_sources, sources_differ
from constellation.config.state import read_state
from constellation.services.joinservice import server as server_module
from constellation.trust.cluster_policy import dump_policy, parse_policy
from tests.fakes.cloud_confs import conf
from tests.fakes.policy_world import Owned, owned_cluster
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from constellation.cluster.context import Context

OURS = ("https://files.example/k8s", "http://10.0.3.7:8080")


@pytest.fixture
async def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owned]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(owned_cluster(tmp_path))


def context(owned: Owned, *sources: str) -> Context:
    config = conf("aws", control_planes=3, sources=sources)
    return dataclasses.replace(owned.context, config=config)


async def test_every_control_plane_has_what_the_conf_names_now(owned: Owned) -> None:
    before = current_policy(owned.state)
    assert before.artifact_sources == ()
    assert sources_differ(context(owned, *OURS), owned.state)
    state = await follow_sources(context(owned, *OURS), owned.state)
    kept = [p.files.kept_policy().verified() for p in owned.planes]
    assert {k.artifact_sources for k in kept} == {OURS}
    same = dataclasses.replace(kept[0], serial=before.serial, artifact_sources=())
    assert same == before, "nothing else is said"
    # the same again signs nothing
    assert not sources_differ(context(owned, *OURS), state)
    assert (await follow_sources(context(owned, *OURS), state)).policy_serial == state.policy_serial


async def test_one_that_was_cut_off_goes_on_and_then_follows_the_conf(owned: Owned) -> None:
    await owned.planes[2].stop()
    owned.wait_s = 0.5
    with pytest.raises(Unavailable):
        await follow_sources(context(owned, *OURS), owned.state)
    state = read_state(owned.workspace.state)
    assert state is not None
    with pytest.raises(Unavailable):
        await follow_sources(context(owned, *OURS), state)
    await owned.planes[2].start()
    owned.wait_s = 10
    # the same command goes on: it says all that is wanted, and is not obeyed everywhere
    state = await follow_sources(context(owned, *OURS), state)
    assert {p.files.kept_policy().verified().artifact_sources for p in owned.planes} == {OURS}
    assert state.policy_before is None
    state = await follow_sources(context(owned, OURS[1]), state)
    assert {p.files.kept_policy().verified().artifact_sources for p in owned.planes} == {OURS[1:]}


async def test_the_local_provider_follows_nothing(owned: Owned) -> None:
    assert not sources_differ(owned.context, owned.state)


@pytest.mark.parametrize(
    "source", ["https://user:secret@files.example", "file:///etc/passwd", "https://f.example/../x"]
)
async def test_a_policy_with_a_source_that_is_none_is_no_policy(owned: Owned, source: str) -> None:
    data = dump_policy(dataclasses.replace(current_policy(owned.state), artifact_sources=OURS))
    assert parse_policy(data).artifact_sources == OURS
    with pytest.raises(FormatError, match="artifact source"):
        parse_policy(data.replace(OURS[0].encode(), source.encode()))
