"""Attacks by a false JoinService: what a joining node meets where the metadata API sends it.

Real aTLS, real quotes, the node's own way in (`services.join_channel`). Whoever is not a
JoinService of this cluster is told nothing: `asked` counts the join requests that it got.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from constellation.atls import server as atls_server
from constellation.atls.binding import channel_binding
from constellation.atls.limits import USUAL
from constellation.attestation.model import AttestationResult, Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.platforms.local_vtpm_log import predicted_pcrs
from constellation.attestation.tpm.device import Tpm
from constellation.base import clock
from constellation.base.errors import ConstellationError, Rejected, Untrusted
from constellation.crypto.signing import generate_key, spki
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import JoinServiceBase
from constellation.services import join_channel
from constellation.trust.channel_proof import JOIN_CHANNEL_LABEL, prove_join_channel
from constellation.trust.cluster_policy import AcceptedRelease, ClusterPolicy, sign_policy
from constellation.trust.node_document import NodeDocument, dump_node_document
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.attestation.model import Binding, Evidence
    from constellation.crypto.signing import ec
    from constellation.trust.cluster_policy import SignedPolicy

LINE = "constellation.provider=local constellation.variant=local-vtpm"
OS_RELEASE = b"ID=constellation\n"
IMAGE = hashlib.sha256(b"node image").digest()
CA = LocalCloudCa()
"""One cloud: machines of all clusters have AKs that it certified."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Owner key, join key and document of one cluster of this cloud, all of the same image."""

    name: str
    owner: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    join: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)

    @property
    def document(self) -> NodeDocument:
        return NodeDocument(
            version=1,
            cluster_id=hashlib.sha256(self.name.encode()).digest(),
            owner_public_key=spki(self.owner.public_key()),
            release_root=b"root",
            minimum_release="0.1.0",
            variant=Variant.LOCAL_VTPM,
        )

    def policy(self, *, serial: int = 2) -> SignedPolicy:
        _, extends = local_vtpm.firmware_log(IMAGE, LINE, OS_RELEASE)
        release = AcceptedRelease(
            name="0.1.0",
            not_before=0,
            not_after=None,
            image_digest=IMAGE,
            reference={number: (value,) for number, value in predicted_pcrs(extends).items()},
        )
        policy = ClusterPolicy(
            cluster_id=self.document.cluster_id,
            serial=serial,
            releases=(release,),
            trust_roots=(CA.root,),
            artifact_lists={"v1.36.2": bytes(32)},
            services_bundle=bytes(32),
            kubernetes_version="v1.36.2",
            join_public_key=spki(self.join.public_key()),
        )
        return sign_policy(policy, self.owner)


OURS, OTHER = Cluster(name="ours"), Cluster(name="another")


class Node:
    """A genuine machine with a TPM of its own; attests for whatever purpose it is made for."""

    variant = Variant.LOCAL_VTPM

    def __init__(self, socket: Path, log: Path) -> None:
        self._socket, self._log = socket, log

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        binding = channel_binding(
            purpose=purpose,
            variant=self.variant,
            exporter=exporter,
            spki_digest=spki_digest,
            peer_nonce=peer_nonce,
        )
        async with await Tpm.connect(self._socket) as tpm:
            return await local_vtpm.LocalVtpmAttester(tpm, self._log).attest(binding)


@contextlib.asynccontextmanager
async def machine(
    folder: Path, *, cluster: Cluster = OURS, given: bool = True, image: bytes = IMAGE
) -> AsyncIterator[Node]:
    folder.mkdir()
    async with swtpm(folder) as socket:
        log, extends = local_vtpm.firmware_log(image, LINE, OS_RELEASE)
        (folder / "firmware").write_bytes(log)
        async with await Tpm.connect(socket) as tpm:
            await local_vtpm.manufacture(tpm, CA.certify)
            for number, digest in extends:
                await tpm.extend(number, digest)
        await local_vtpm.measure_node_document(
            socket,
            dump_node_document(cluster.document),
            firmware_log=folder / "firmware",
            event_log=folder / "log",
        )
        if given:
            async with await Tpm.connect(socket) as tpm:
                await local_vtpm.give_to_cluster(
                    tpm, cluster.document.cluster_id, event_log=folder / "log"
                )
        yield Node(socket, folder / "log")


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
