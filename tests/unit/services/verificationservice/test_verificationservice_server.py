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
from constellation.atls.nonce_batch import Place, root_of
from constellation.attestation.model import Evidence, Variant
from constellation.attestation.policy import Exactly
from constellation.base import clock
from constellation.base.errors import FormatError, Unavailable, Untrusted
from constellation.crypto.x509 import CertificateAuthority, certificate_digest
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs.verify_grpc import VerificationServiceStub
from constellation.rpc.stubs.verify_pb2 import GetEvidenceReply, GetEvidenceRequest
from constellation.services.verificationservice.answers import CALLS, Answers
from constellation.services.verificationservice.server import Verification
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
        self.broken = False
        self._closers: list[Callable[[], None]] = []

    async def attest_verify(self, *, nonces_root: bytes, cluster_ca_digest: bytes) -> Evidence:
        await self.hold.wait()
        if self.broken:
            raise Unavailable("the TPM does not answer")
        return await self.machine.attest_verify(
            nonces_root=nonces_root, cluster_ca_digest=cluster_ca_digest
        )

    async def serve(self, *, limits: Limits = CALLS) -> VerificationServiceStub:
        answers = Answers(self, cluster_ca=self.ca, node_name="w-0", limits=limits)
        server = Server([Verification(answers)])
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


def appraised(reply: GetEvidenceReply, nonce: bytes, *, ca: bytes | None = None) -> bytes:
    """Judge an answer as `verify` does; gives the register that it proves."""
    evidence = Evidence(variant=Variant(reply.variant), data=reply.evidence)
    batch = reply.batch
    place = Place(index=batch.index, size=batch.size, path=tuple(batch.path))
    binding = verify_binding(
        nonces_root=root_of(nonce, place),
        cluster_ca_digest=ca or certificate_digest(reply.cluster_ca_certificate),
    )
    result = MAKER.appraiser({"pcr4": Exactly(PCR4)})(evidence, binding)
    register = result.claims["pcr4"]
    assert isinstance(register, bytes)
    return register


async def test_evidence_is_for_the_caller_s_nonce_and_the_cluster_s_ca(node: Node) -> None:
    reply = await ask(await node.serve())
    assert reply.node_name == "w-0"
    assert appraised(reply, NONCE) == PCR4
    for nonce, ca in ((bytes(32), None), (NONCE, bytes(32))):
        with pytest.raises(Untrusted, match="another"):
            appraised(reply, nonce, ca=ca)


async def test_callers_who_come_during_a_quote_share_the_next_one(node: Node) -> None:
    stub = await node.serve()
    node.hold.clear()
    nonces = [bytes([n]) * 32 for n in range(12)]
    asked = [asyncio.create_task(ask(stub, n)) for n in nonces]
    await asyncio.sleep(0.2)
    node.hold.set()
    replies = await asyncio.gather(*asked)
    assert node.machine.asked == ["verify", "verify"]
    assert sorted(r.batch.size for r in replies) == [1] + [11] * 11
    assert {r.batch.index for r in replies[1:]} == set(range(11))
    for nonce, reply in zip(nonces, replies, strict=True):
        assert appraised(reply, nonce) == PCR4
    # an answer is its caller's alone, and one for an earlier batch is nobody's later
    for nonce, reply in ((nonces[3], replies[4]), (nonces[4], replies[0]), (bytes(32), replies[5])):
        with pytest.raises(Untrusted, match="another"):
            appraised(reply, nonce)


async def test_who_leaves_or_a_quote_that_fails_keeps_nobody_else_waiting(node: Node) -> None:
    stub = await node.serve()
    node.hold.clear()
    asked = [asyncio.create_task(ask(stub, bytes([n]) * 32)) for n in range(6)]
    await asyncio.sleep(0.1)
    asked[2].cancel()
    await asyncio.sleep(0.1)
    node.broken = True
    node.hold.set()
    for task in (*asked[:2], *asked[3:]):
        with pytest.raises(Unavailable, match="does not answer"):
            await task
    node.broken = False
    assert appraised(await ask(stub), NONCE) == PCR4


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
