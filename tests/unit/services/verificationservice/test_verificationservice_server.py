"""Tests of constellation.services.verificationservice.server over a real socket."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from grpclib.client import Channel
from grpclib.server import Server

from constellation.atls.binding import verify_binding
from constellation.attestation.model import Evidence, Variant
from constellation.attestation.policy import Exactly
from constellation.base import clock
from constellation.base.errors import FormatError, Unavailable, Untrusted
from constellation.crypto.x509 import CertificateAuthority, certificate_digest
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs.verify_grpc import VerificationServiceStub
from constellation.rpc.stubs.verify_pb2 import GetEvidenceReply, GetEvidenceRequest
from constellation.services.verificationservice.server import CALLS, Verification
from tests.fakes.machines import Maker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from constellation.atls.limits import Limits

PCR4, NONCE = bytes([1]) * 32, bytes([2]) * 32
CA = CertificateAuthority.create("kubernetes", now=clock.now(), lifetime=timedelta(days=1))
MAKER = Maker()


class Node:
    def __init__(self, folder: Path) -> None:
        self.machine = MAKER.machine(pcr4=PCR4)
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(CA.certificate_pem)
        self.hold = asyncio.Event()
        self.hold.set()
        self._closers: list[Callable[[], None]] = []

    async def attest_verify(self, *, nonce: bytes, cluster_ca_digest: bytes) -> Evidence:
        await self.hold.wait()
        return await self.machine.attest_verify(nonce=nonce, cluster_ca_digest=cluster_ca_digest)

    async def serve(self, *, limits: Limits = CALLS) -> VerificationServiceStub:
        handlers = Verification(self, cluster_ca=self.ca, node_name="w-0", limits=limits)
        server = Server([handlers])
        await server.start("127.0.0.1", 0)
        listener = server._server
        assert isinstance(listener, asyncio.Server)
        channel = Channel("127.0.0.1", listener.sockets[0].getsockname()[1])
        self._closers += [channel.close, server.close]
        return VerificationServiceStub(channel)

    def close(self) -> None:
        for close in self._closers:
            close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    node.close()
    await asyncio.sleep(0.01)


async def ask(stub: VerificationServiceStub, nonce: bytes = NONCE) -> GetEvidenceReply:
    with raise_ours("node"):
        return await stub.GetEvidence(GetEvidenceRequest(nonce=nonce), timeout=5)


async def test_evidence_is_for_the_caller_s_nonce_and_the_cluster_s_ca(node: Node) -> None:
    reply = await ask(await node.serve())
    assert reply.node_name == "w-0"
    evidence = Evidence(variant=Variant(reply.variant), data=reply.evidence)
    appraise = MAKER.appraiser({"pcr4": Exactly(PCR4)})
    digest = certificate_digest(reply.cluster_ca_certificate)
    result = appraise(evidence, verify_binding(nonce=NONCE, cluster_ca_digest=digest))
    assert result.claims["pcr4"] == PCR4
    for nonce, ca in ((bytes(32), digest), (NONCE, bytes(32))):
        with pytest.raises(Untrusted, match="another"):
            appraise(evidence, verify_binding(nonce=nonce, cluster_ca_digest=ca))


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
async def test_a_nonce_of_another_size_is_refused_and_nothing_is_quoted(
    node: Node, size: int
) -> None:
    with pytest.raises(FormatError, match=f"nonce: {size} bytes"):
        await ask(await node.serve(), bytes(size))
    assert node.machine.asked == []


async def test_a_node_that_has_no_cluster_yet_says_so(node: Node) -> None:
    node.ca.unlink()
    with pytest.raises(Unavailable, match="no cluster CA yet"):
        await ask(await node.serve())


async def test_calls_above_the_limit_are_sent_away_and_places_come_back(node: Node) -> None:
    stub = await node.serve(limits=dataclasses.replace(CALLS, handshakes_per_address=2))
    node.hold.clear()
    waiting = [asyncio.create_task(ask(stub)) for _ in range(2)]
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable, match="too many"):
        await ask(stub)
    node.hold.set()
    await asyncio.gather(*waiting)
    assert (await ask(stub)).node_name == "w-0"


async def test_one_address_may_not_ask_more_often_than_the_rate(node: Node) -> None:
    stub = await node.serve(limits=dataclasses.replace(CALLS, per_minute=2))
    await ask(stub)
    await ask(stub)
    with pytest.raises(Unavailable, match="too many"):
        await ask(stub)
