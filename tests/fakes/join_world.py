"""A control plane's disk, a shared log in memory, and machines that attest with a made-up TPM."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from constellation.atls import client
from constellation.attestation.model import AttestationResult, Evidence, Variant
from constellation.base import decode
from constellation.base.errors import Rejected, Unavailable, Untrusted
from constellation.base.secret import Secret
from constellation.crypto import signing
from constellation.crypto.derive import MasterSecret
from constellation.crypto.x509 import CertificateAuthority
from constellation.kube import live_nodes
from constellation.kube.join_log import Entry, Kind
from constellation.kube.log_copy import LogCopy
from constellation.kube.membership import Member, NodeRole, found
from constellation.kube.node_certificates import certify, certify_service
from constellation.kube.placement import allocate, place_first
from constellation.rpc.stubs import join_pb2
from constellation.rpc.stubs.join_grpc import JoinServiceStub
from constellation.services.joinservice.ledger import Ledger
from constellation.services.joinservice.secrets_on_disk import NodeFiles
from constellation.services.joinservice.server import JoinServer
from constellation.trust.cluster_policy import (
    AcceptedRelease,
    ClusterPolicy,
    sign_policy,
)
from constellation.trust.node_document import NodeDocument, dump_node_document
from tests.fakes.members import ARTIFACT_LIST, CLUSTER_ID, settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from constellation.attestation.model import Binding
    from constellation.kube.etcd import EtcdMember
    from constellation.kube.join_log import SignedRecord
    from constellation.kube.membership import Membership, Settings
    from constellation.providers.protocols import Instance
    from constellation.services.joinservice.admit import JoinFacts
    from constellation.services.joinservice.housekeep import Observed
    from constellation.trust.cluster_policy import SignedPolicy
    from tests.fakes.cluster_machines import Cluster

IMAGE = hashlib.sha256(b"image").digest()
NODE_TIME = 1_800_000_000


@dataclass(kw_only=True)
class SharedLog:
    """`ledger.Records` in memory; `away`: it fails at once; until `answers` is set it hangs."""

    records: dict[int, SignedRecord] = field(default_factory=dict)
    away: bool = False
    answers: asyncio.Event | None = None

    async def get(self, sequence: int) -> SignedRecord | None:
        await self._answer()
        return self.records.get(sequence)

    async def create(self, sequence: int, record: SignedRecord) -> bool:
        await self._answer()
        return self.records.setdefault(sequence, record) is record

    async def delete(self, sequence: int) -> None:
        await self._answer()
        self.records.pop(sequence, None)

    async def after(self, sequence: int) -> int | None:
        await self._answer()
        return min((n for n in self.records if n > sequence), default=None)

    async def _answer(self) -> None:
        if self.answers is not None:
            await self.answers.wait()
        if self.away:
            raise Unavailable("the log is away")


@dataclass(kw_only=True)
class Chip:
    """Evidence is the machine's id, its registers and the binding's inputs, in plain text."""

    name: str
    image: bytes = IMAGE
    pcr15: bytes = bytes(32)
    variant: Variant = Variant.LOCAL_VTPM

    async def attest(
        self, *, purpose: str, exporter: bytes, spki_digest: bytes, peer_nonce: bytes
    ) -> Evidence:
        del purpose, exporter, spki_digest, peer_nonce
        data = f"{self.name}/{self.image.hex()}/{self.pcr15.hex()}"
        return Evidence(variant=self.variant, data=data.encode())


def appraise(evidence: Evidence, binding: Binding) -> AttestationResult:
    """The rule of the test cluster: one image, PCR 15 zero."""
    del binding
    name, image, pcr15 = evidence.data.decode().split("/")
    if image != IMAGE.hex():
        raise Rejected((f"pcr4: found {image}, expected {IMAGE.hex()}",))
    return AttestationResult(
        variant=evidence.variant,
        attester_id=hashlib.sha256(f"ak {name}".encode()).digest(),
        claims={"pcr4": bytes.fromhex(image), "pcr15": bytes.fromhex(pcr15)},
        unchecked=(),
        warnings=(),
    )


@dataclass(kw_only=True)
class Provider:
    """`Metadata.peers` with a list that tests change."""

    instances: tuple[Instance, ...]
    away: bool = False

    async def peers(self) -> tuple[Instance, ...]:
        if self.away:
            raise Unavailable("the provider is away")
        return self.instances


class Keys:
    """KeyService: one key a disk."""

    async def state_disk(self, uuid: bytes) -> Secret:
        return Secret(hashlib.sha512(uuid).digest())


@dataclass(kw_only=True)
class World:
    """What housekeeping sees; None: nobody answers. `removed`: etcd members it took out.

    `live`: whose kubelets the API servers know as members', as it was told last; `deaf`: nobody
    hears of it.
    """

    seen: Observed | None = None
    removed: list[EtcdMember] = field(default_factory=list)
    live: frozenset[str] = frozenset()
    deaf: bool = False

    async def observe(self) -> Observed:
        if self.seen is None:
            raise Unavailable("nobody answers")
        return self.seen

    async def remove_member(self, member: EtcdMember) -> None:
        assert self.seen is not None
        self.removed.append(member)
        left = tuple(m for m in self.seen.etcd if m != member)
        self.seen = dataclasses.replace(self.seen, etcd=left)

    async def publish(self, membership: Membership) -> None:
        if self.deaf:
            raise Unavailable("nobody listens")
        self.live = frozenset(live_nodes.names(membership))


def write_control_plane(
    root: Path,
    *,
    workers: int = 2,
    cluster: Cluster | None = None,
    attester_id: bytes = b"",
    now: datetime | None = None,
    plan: Settings | None = None,
) -> NodeFiles:
    """Write what the first node's bootstrapper leaves on its disk; its address is 127.0.0.1.

    `cluster` is one whose machines are genuine (`cluster_machines`); else keys are made up. `now`
    dates the certificates; None: the machine's clock.
    """
    now = now or datetime.now(UTC)
    files = NodeFiles(
        state=root / "state", pki=root / "pki", node_document=root / "node-document.json"
    )
    keys = files.state / "keys"
    for folder in (keys, files.pki / "etcd"):
        folder.mkdir(parents=True)
    service = signing.generate_key()
    cluster_ca, services_ca = (
        CertificateAuthority.create(name, now=now, lifetime=timedelta(days=100))
        for name in ("kubernetes", "services")
    )
    _write_pki(files.pki, cluster_ca)
    join, document, policy, master = (
        (cluster.join, cluster.document, cluster.policy(serial=1), cluster.master)
        if cluster is not None
        else _made_up()
    )
    plan = plan or dataclasses.replace(settings(workers=workers), cluster_id=document.cluster_id)
    first = first_member(service, plan=plan, attester_id=attester_id)
    files.node_document.write_bytes(dump_node_document(document))
    files.kept_policy().keep_first(policy)
    certificates = certify(
        first,
        cluster_ca=cluster_ca,
        services_ca=services_ca,
        cluster_id=document.cluster_id,
        now=now,
    )
    for name, data in {
        "join.pem": signing.dump_private_key(join).reveal(),
        "services-ca.crt": services_ca.certificate_pem,
        "services-ca.key": services_ca.key_pem.reveal(),
        "service.pem": signing.dump_private_key(service).reveal(),
        "service.crt": certificates.service,
        "master-secret.json": decode.dump(master),
        "membership.json": decode.dump(found(plan, first)),
    }.items():
        (keys / name).write_bytes(data)
    return files


def _made_up() -> tuple[
    ec.EllipticCurvePrivateKey,
    NodeDocument,
    SignedPolicy,
    MasterSecret,
]:
    owner, join = signing.generate_key(), signing.generate_key()
    document = NodeDocument(
        version=1,
        cluster_id=CLUSTER_ID,
        owner_public_key=signing.spki(owner.public_key()),
        release_root=b"root",
        minimum_release="0.1.0",
        variant=Variant.LOCAL_VTPM,
    )
    policy = ClusterPolicy(
        cluster_id=CLUSTER_ID,
        serial=1,
        releases=(
            AcceptedRelease(
                name="r", not_before=0, not_after=None, image_digest=IMAGE, reference={4: (IMAGE,)}
            ),
        ),
        trust_roots=(b"ca",),
        artifact_lists={"v1.36.2": hashlib.sha256(ARTIFACT_LIST).digest()},
        services_bundle=bytes(32),
        kubernetes_version="v1.36.2",
        join_public_key=signing.spki(join.public_key()),
    )
    master = MasterSecret(key=Secret(bytes(32)), salt=Secret(bytes(32)))
    return join, document, sign_policy(policy, owner), master


def first_member(
    service: ec.EllipticCurvePrivateKey, *, plan: Settings, attester_id: bytes
) -> Member:
    free = place_first(plan, plan.groups[0])
    public = signing.spki(service.public_key())
    return Member(
        name=free.name,
        instance_id="cp-0",
        role=NodeRole.CONTROL_PLANE,
        group="control-plane-default",
        attester_id=attester_id or hashlib.sha256(b"ak cp-0").digest(),
        address="127.0.0.1",
        mesh_address=free.mesh_address,
        pod_cidr=free.pod_cidr,
        disk_uuid=hashlib.sha256(b"disk cp-0").digest()[:16],
        kubelet_client_public_key=public,
        kubelet_serving_public_key=public,
        service_public_key=public,
        mesh_public_key=hashlib.sha256(b"mesh cp-0").digest(),
        joined=0,
    )


async def write_another(root: Path, first: NodeFiles, ledger: Ledger, *, index: int) -> NodeFiles:
    """Admit and settle one more control plane, 127.0.0.(index + 1), and write its disk."""
    files = NodeFiles(state=root / "state", pki=first.pki, node_document=first.node_document)
    keys = files.state / "keys"
    shutil.copytree(first.state / "keys", keys)
    service, plan = signing.generate_key(), ledger.membership.settings
    free = allocate(ledger.membership, group=plan.groups[0])
    member = dataclasses.replace(
        first_member(service, plan=plan, attester_id=hashlib.sha256(root.name.encode()).digest()),
        name=free.name,
        instance_id=f"cp-{index}",
        address=f"127.0.0.{index + 1}",
        mesh_address=free.mesh_address,
        pod_cidr=free.pod_cidr,
        disk_uuid=hashlib.sha256(f"disk cp-{index}".encode()).digest()[:16],
        mesh_public_key=hashlib.sha256(f"mesh cp-{index}".encode()).digest(),
    )

    def reserve(membership: Membership) -> Entry:
        joined = dataclasses.replace(member, joined=membership.sequence + 1)
        return Entry(kind=Kind.RESERVED, time=1, member=joined, expires_at=301)

    await ledger.write(reserve, now=1)
    await ledger.write(lambda _: Entry(kind=Kind.SETTLED, time=1, name=free.name), now=1)
    certificate = certify_service(
        member,
        services_ca=first.services_ca(),
        cluster_id=plan.cluster_id,
        now=datetime.now(UTC),
    )
    for name, data in {
        "service.pem": signing.dump_private_key(service).reveal(),
        "service.crt": certificate,
        "membership.json": decode.dump(ledger.membership),
    }.items():
        (keys / name).write_bytes(data)
    files.kept_policy().keep_first(first.kept_policy().signed())
    return files


def _write_pki(pki: Path, ca: CertificateAuthority) -> None:
    for name in ("ca", "front-proxy-ca", "etcd/ca"):
        (pki / f"{name}.crt").write_bytes(ca.certificate_pem)
        (pki / f"{name}.key").write_bytes(ca.key_pem.reveal())
    (pki / "sa.key").write_bytes(b"service account key")
    (pki / "sa.pub").write_bytes(b"service account public key")


def ledger_of(
    files: NodeFiles, log: SharedLog, *, copy: str = "join-log", writer: str = ""
) -> Ledger:
    return Ledger.open_(
        LogCopy(files.state / copy, seed=files.state / "keys" / "membership.json"),
        records=log,
        writer=writer or copy,
        join_private_key=files.join_key(),
    )


def server_of(files: NodeFiles, ledger: Ledger, provider: Provider, world: World) -> JoinServer:
    return JoinServer(
        files=files,
        kept=files.kept_policy(),
        ledger=ledger,
        attester=Chip(name="cp-0", pcr15=IMAGE),
        appraise=appraise,
        appraise_given=appraise,
        provider=provider,
        keys=Keys(),
        world=world,
        versions=no_api_server,
        pinned_root=b"",
        own_name="control-plane-default-0",
        host="127.0.0.1",
        join_port=0,
        peer_port=0,
        policy_port=0,
    )


async def no_api_server(address: str) -> str:
    raise Unavailable(f"no API server at {address}")


@contextlib.asynccontextmanager
async def channel_to(
    port: int, chip: Chip, *, purpose: str
) -> AsyncIterator[tuple[client.AtlsChannel, JoinServiceStub]]:
    def server_is_fine(evidence: Evidence, binding: Binding) -> AttestationResult:
        if evidence.data.split(b"/")[0] != b"cp-0":
            raise Untrusted("not the control plane")
        return appraise(evidence, binding)

    channel = await client.connect(
        "127.0.0.1",
        port,
        purpose=purpose,
        server_purpose="join-server",
        attester=chip,
        appraise=server_is_fine,
        deadline_s=10,
    )
    try:
        yield channel, JoinServiceStub(channel.grpc)
    finally:
        channel.close()


def request_of(facts: JoinFacts) -> join_pb2.JoinRequest:
    return join_pb2.JoinRequest(
        instance_id=facts.instance_id,
        role=facts.role,
        address=facts.address,
        disk_uuid=facts.disk_uuid,
        kubelet_client_public_key=facts.kubelet_client_public_key,
        kubelet_serving_public_key=facts.kubelet_serving_public_key,
        service_public_key=facts.service_public_key,
        mesh_public_key=facts.mesh_public_key,
        time=NODE_TIME,
    )
