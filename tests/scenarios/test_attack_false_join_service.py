"""Attacks by a false JoinService: what a joining node meets where the metadata API sends it.

Real aTLS, real quotes, the node's own way in (`services.join_channel`). Whoever is not a
JoinService of this cluster is told nothing: `asked` counts the join requests that it got.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from constellation.atls import server as atls_server
from constellation.atls.limits import USUAL
from constellation.attestation.model import AttestationResult
from constellation.base import clock
from constellation.base.errors import ConstellationError, Rejected, Untrusted
from constellation.crypto.signing import generate_key
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import JoinServiceBase
from constellation.services import join_channel
from constellation.trust.channel_proof import JOIN_CHANNEL_LABEL, prove_join_channel
from tests.fakes.cluster_machines import OTHER, OURS, Cluster, Node, machine
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.attestation.model import Binding, Evidence
    from constellation.crypto.signing import ec
    from constellation.trust.cluster_policy import SignedPolicy


class Service(JoinServiceBase):
    """A JoinService: true or false by policy, key and cluster; `stolen` is shown as its proof."""

    def __init__(
        self, *, policy: SignedPolicy, key: ec.EllipticCurvePrivateKey, cluster: Cluster = OURS
    ) -> None:
        self._policy, self._key, self._cluster = policy, key, cluster
        self.stolen = b""
        self.asked = 0

    async def Introduce(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.IntroduceRequest, join_pb2.Introduction]
    ) -> None:
        await stream.recv_message()
        proof = self.stolen or prove_join_channel(
            self._key,
            exporter=atls_server.peer_of(stream).exporter(JOIN_CHANNEL_LABEL),
            cluster_id=self._cluster.document.cluster_id,
        )
        reply = join_pb2.Introduction(
            policy=self._policy.policy,
            policy_signature=self._policy.signature,
            channel_signature=proof,
        )
        await stream.send_message(reply)

    async def Join(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.JoinRequest, join_pb2.JoinTicket]
    ) -> None:
        await stream.recv_message()
        self.asked += 1
        await stream.send_message(join_pb2.JoinTicket(node_name="you"))

    async def Rejoin(  # noqa: N802 - the protocol's name
        self, stream: Stream[object, object]
    ) -> None:
        await stream.recv_message()
        self.asked += 1

    async def Settled(  # noqa: N802 - the protocol's name
        self, stream: Stream[object, object]
    ) -> None:
        await stream.recv_message()
        self.asked += 1

    async def Renew(  # noqa: N802 - the protocol's name
        self, stream: Stream[object, object]
    ) -> None:
        await stream.recv_message()
        self.asked += 1


class Junk(Service):
    """Answers Introduce with bytes that no gRPC server sends: `data` after `headers`."""

    def __init__(self, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(policy=OURS.policy(), key=OURS.join)
        self._data, self._headers = data, headers

    async def Introduce(  # noqa: N802 - the protocol's name
        self, stream: Stream[join_pb2.IntroduceRequest, join_pb2.Introduction]
    ) -> None:
        await stream.recv_message()
        raw = stream._stream
        usual = ((":status", "200"), ("content-type", "application/grpc"))
        await raw.send_headers([*usual, *self._headers])
        await raw.send_data(self._data)
        await raw.send_headers([("grpc-status", "0")], end_stream=True)


def anybody(evidence: Evidence, _binding: Binding) -> AttestationResult:
    return AttestationResult(
        variant=evidence.variant, attester_id=bytes(32), claims={}, unchecked=(), warnings=()
    )


async def join(
    service: Service, on: Node, joining: Node, *, purpose: str = "join-server", seen: int = 1
) -> str:
    """Let a fresh node meet `service` on the machine `on`; gives the name that it was given."""
    listening = await atls_server.serve(
        [service],
        host="127.0.0.1",
        port=0,
        purpose=purpose,
        attester=on,
        appraisers={"join-client": anybody},
        limits=USUAL,
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(join_channel, "PORT", listening.port)
    patch.setattr(clock, "now", lambda: NOW)
    try:
        async with join_channel.judged_channel(
            "127.0.0.1",
            purpose="join-client",
            attester=joining,
            document=OURS.document,
            minimum_serial=seen,
        ) as true_one:
            return (await true_one.stub.Join(join_pb2.JoinRequest(), timeout=10)).node_name
    finally:
        patch.undo()
        listening.close()
        await listening.wait_closed()


@pytest.fixture
async def joining(tmp_path: Path) -> AsyncIterator[Node]:
    async with machine(tmp_path / "joining", given=False) as node:
        yield node


async def refused(
    service: Service, on: Node, joining: Node, *, purpose: str = "join-server", seen: int = 1
) -> ConstellationError:
    with pytest.raises(ConstellationError) as caught:
        await join(service, on, joining, purpose=purpose, seen=seen)
    assert service.asked == 0
    return caught.value


async def test_a_join_service_of_this_cluster_is_asked(tmp_path: Path, joining: Node) -> None:
    async with machine(tmp_path / "cp") as control_plane:
        service = Service(policy=OURS.policy(), key=OURS.join)
        assert await join(service, control_plane, joining) == "you"
    assert service.asked == 1


async def test_the_join_service_of_another_genuine_cluster_is_told_nothing(
    tmp_path: Path, joining: Node
) -> None:
    async with machine(tmp_path / "cp", cluster=OTHER) as theirs:
        its_own = Service(policy=OTHER.policy(), key=OTHER.join, cluster=OTHER)
        assert isinstance(await refused(its_own, theirs, joining), Untrusted)
        # it knows our policy, which is no secret; it has no join key of ours
        ours_shown = Service(policy=OURS.policy(), key=OTHER.join)
        assert isinstance(await refused(ours_shown, theirs, joining), Untrusted)
        # even with our join key its machine is not of our cluster
        with_our_key = Service(policy=OURS.policy(), key=OURS.join)
        error = await refused(with_our_key, theirs, joining)
        assert isinstance(error, Rejected)
        assert {f.partition(":")[0] for f in error.findings} >= {"pcr8", "pcr15"} or (
            "PCR 8" in str(error) and "PCR 15" in str(error)
        )


async def test_a_genuine_worker_that_plays_join_service_is_told_nothing(
    tmp_path: Path, joining: Node
) -> None:
    async with machine(tmp_path / "worker") as worker:
        service = Service(policy=OURS.policy(), key=generate_key())
        assert isinstance(await refused(service, worker, joining), Untrusted)
        # it joined itself once, and kept what the true JoinService showed it on that channel
        exporter = hashlib.sha256(b"the worker's own channel").digest()
        service.stolen = prove_join_channel(
            OURS.join, exporter=exporter, cluster_id=OURS.document.cluster_id
        )
        assert isinstance(await refused(service, worker, joining), Untrusted)


async def test_evidence_for_another_purpose_is_no_join_service_s(
    tmp_path: Path, joining: Node
) -> None:
    async with machine(tmp_path / "cp") as control_plane:
        service = Service(policy=OURS.policy(), key=OURS.join)
        error = await refused(service, control_plane, joining, purpose="init-server")
    assert "init-server" in str(error)


async def test_an_older_policy_than_the_node_has_seen_is_refused(
    tmp_path: Path, joining: Node
) -> None:
    async with machine(tmp_path / "cp") as control_plane:
        old = Service(policy=OURS.policy(serial=2), key=OURS.join)
        error = await refused(old, control_plane, joining, seen=3)
        assert "serial 2" in str(error)
        assert await join(old, control_plane, joining, seen=2) == "you"


async def test_a_machine_that_is_in_no_cluster_or_of_another_image_is_told_nothing(
    tmp_path: Path, joining: Node
) -> None:
    async with machine(tmp_path / "fresh", given=False) as fresh:
        error = await refused(Service(policy=OURS.policy(), key=OURS.join), fresh, joining)
        assert isinstance(error, Rejected)
    changed = hashlib.sha256(b"node image with one bit changed").digest()
    async with machine(tmp_path / "changed", image=changed) as other:
        error = await refused(Service(policy=OURS.policy(), key=OURS.join), other, joining)
        assert isinstance(error, Rejected)
        assert changed.hex() in str(error), "the event that explains it"


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"\x01\x00\x00\x00\x01x", ()),  # compressed, it says
        (b"\x00\x00", ()),  # a header that ends early
        (b"\x00\x00\x00\x00\x09short", ()),  # a message that does
        (b"\x00\x00\x00\x00\x03\x0a\xff\x01", ()),  # no Introduction
        (b"", ()),  # no message at all
        (b"", (("x-bin", "a"),)),  # metadata that is not base64
        (b"\x00\x00\x00\x00\x00", ()),  # an empty Introduction
    ],
)
async def test_what_no_server_of_ours_answers_is_a_refusal_and_no_crash(
    tmp_path: Path, joining: Node, data: bytes, headers: tuple[tuple[str, str], ...]
) -> None:
    async with machine(tmp_path / "cp") as control_plane:
        await refused(Junk(data, headers), control_plane, joining)
        assert await join(Service(policy=OURS.policy(), key=OURS.join), control_plane, joining)
