"""Whose authorities certify a cloud's machines: the vendors', unless the provider has its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from constellation.attestation.registry import published_roots
from constellation.cluster.context import Context
from constellation.cluster.steps import machines
from constellation.config.state import STATE_VERSION, Image, State
from constellation.config.workspace import Workspace
from constellation.providers.protocols import InfrastructureState
from constellation.trust.cluster_policy import AcceptedRelease
from tests.fakes.amd import NOW
from tests.fakes.cloud_confs import DOCUMENT, UID, conf
from tests.fakes.owner_world import Shelf

if TYPE_CHECKING:
    from pathlib import Path

    from constellation.base.progress import Report
    from constellation.providers.protocols import Desired


@dataclass
class _Made:
    """An infrastructure that is there, with authorities of its own or none."""

    trust_roots: tuple[bytes, ...]

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        del desired, report
        return InfrastructureState(
            uid=UID,
            endpoint="10.42.0.1:6443",
            user_endpoint="192.0.2.1:6443",
            api_sans=(),
            instances=(),
            trust_roots=self.trust_roots,
        )


@pytest.mark.parametrize("cloud", ["azure", "gcp"])
@pytest.mark.parametrize("own", [(), (b"own",)])
async def test_the_vendors_authorities_stand_where_a_cloud_has_none(
    cloud: str, own: tuple[bytes, ...], tmp_path: Path
) -> None:
    config = conf(cloud)
    release = AcceptedRelease(
        name="1.0.0",
        not_before=0,
        not_after=None,
        image_digest=bytes(32),
        reference={4: (bytes(32),)},
    )
    state = State(
        version=STATE_VERSION,
        name="constell",
        uid=UID,
        cluster_id=bytes(32),
        node_document=DOCUMENT,
        kubernetes_version="v1.36.2",
        image=Image(path="image", release=release),
    )
    context = Context(
        workspace=Workspace(folder=tmp_path),
        config=config,
        supplies=Shelf(cache=tmp_path),
        infrastructure=lambda _: _Made(own),  # type: ignore[arg-type,return-value] # applies only
        owned=tuple,
        list_nodes=None,  # type: ignore[arg-type] # nobody asks
        now=lambda: NOW,
        report=lambda _: None,
        wait_s=1.0,
    )
    done = await machines.run(context, state)
    assert done.infrastructure is not None
    assert done.infrastructure.trust_roots == (own or published_roots(config.attestation.variant))
    assert dataclasses.replace(done, infrastructure=None) == state
