"""An attested channel between two nodes with real (software) TPMs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.atls import client, server
from constellation.atls.limits import USUAL
from constellation.base.errors import Rejected, Untrusted
from tests.fakes.local_nodes import LocalNode, appraiser, local_node
from tests.fakes.tpm import LocalCloudCa

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from constellation.atls.server import AtlsServer
    from constellation.attestation.model import AttestationResult, Binding, Evidence

CA = LocalCloudCa()


@pytest.fixture
async def control_plane(tmp_path: Path) -> AsyncIterator[AtlsServer]:
    async with local_node(tmp_path / "cp", ca=CA) as node:
        listening = await server.serve(
            [],
            host="127.0.0.1",
            port=0,
            purpose="join-server",
            attester=node,
            appraisers={"join-client": appraiser(CA)},
            limits=USUAL,
        )
        yield listening
        listening.close()
        await listening.wait_closed()


async def connect(
    listening: AtlsServer,
    node: client.ChannelAttester,
    appraise: Callable[[Evidence, Binding], AttestationResult] | None = None,
) -> client.AtlsChannel:
    return await client.connect(
        "127.0.0.1",
        listening.port,
        purpose="join-client",
        server_purpose="join-server",
        attester=node,
        appraise=appraise or appraiser(CA),
        deadline_s=10,
    )


async def test_two_nodes_of_one_cloud_accept_each_other(
    control_plane: AtlsServer, tmp_path: Path
) -> None:
    async with (
        local_node(tmp_path / "w", ca=CA) as worker,
        await connect(control_plane, worker) as channel,
    ):
        assert len(channel.peer.attester_id) == 32


async def test_a_changed_image_is_refused_with_the_event_that_explains_it(
    control_plane: AtlsServer, tmp_path: Path
) -> None:
    changed = hashlib.sha256(b"node image with one bit changed").digest()
    async with local_node(tmp_path / "w", ca=CA, image=changed) as worker:
        with pytest.raises(Rejected, match="the server refused this side: pcr4") as told:
            await connect(control_plane, worker)
    assert changed.hex() in str(told.value)


async def test_a_node_of_another_cloud_is_untrusted(
    control_plane: AtlsServer, tmp_path: Path
) -> None:
    async with local_node(tmp_path / "w", ca=LocalCloudCa()) as worker:
        with pytest.raises(Untrusted, match="the server refused this side"):
            await connect(control_plane, worker)


async def test_a_quote_of_another_channel_is_untrusted(
    control_plane: AtlsServer, tmp_path: Path
) -> None:
    class Replayed:
        variant = LocalNode.variant

        def __init__(self, node: LocalNode) -> None:
            self._node = node
            self._kept: Evidence | None = None

        async def attest(
            self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
        ) -> Evidence:
            self._kept = self._kept or await self._node.attest(
                purpose=purpose,
                exporter=exporter,
                spki_digest=spki_digest,
                peer_nonce=peer_nonce,
            )
            return self._kept

    async with local_node(tmp_path / "w", ca=CA) as worker:
        replayed = Replayed(worker)
        (await connect(control_plane, replayed)).close()
        with pytest.raises(Untrusted):
            await connect(control_plane, replayed)
