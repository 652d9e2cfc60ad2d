"""A world for the workstation's engine: one node with a real TPM and real aTLS, a pretended rest.

The node keeps the rules of rpc/protos/init.proto: it checks the owner's proof, refuses a master
secret of another cluster, extends PCR 15, asks for the policy and checks it.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding
from grpclib.server import Server

from constellation.atls import server as atls_server
from constellation.atls.binding import channel_binding, verify_binding
from constellation.atls.limits import USUAL
from constellation.atls.nonce_batch import gather
from constellation.attestation.model import Variant
from constellation.attestation.platforms import local_vtpm
from constellation.attestation.tpm.device import Tpm
from constellation.base.progress import Progress
from constellation.base.secret import Secret
from constellation.cluster.context import Context, KubernetesNode, NodeImage
from constellation.config.schema import Config, NodeGroup
from constellation.config.workspace import Workspace
from constellation.crypto import derive, signing
from constellation.crypto.x509 import CertificateAuthority
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.rpc.errors import raise_status
from constellation.rpc.stubs import init_pb2, verify_pb2
from constellation.rpc.stubs.init_grpc import InitServiceBase
from constellation.rpc.stubs.verify_grpc import VerificationServiceBase
from constellation.services.artifact_shelf import FetchedShelf
from constellation.services.artifacts import used_by_nodes
from constellation.trust.artifact_list import Artifact, ArtifactKind, ArtifactList, parse
from constellation.trust.artifact_sources import parse_sources
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, verify_owner_channel
from constellation.trust.cluster_policy import AcceptedRelease, SignedPolicy, verify_policy
from constellation.trust.node_document import parse_node_document
from tests.fakes.file_servers import door_to
from tests.fakes.tpm import NOW, LocalCloudCa, swtpm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from constellation.attestation.model import AttestationResult, Binding, Evidence
    from constellation.base.progress import Report
    from constellation.providers.protocols import Desired
    from constellation.trust.release import Release

IMAGE = hashlib.sha256(b"node image").digest()
LINE = "constellation.provider=local constellation.variant=local-vtpm"
OS_RELEASE = b"ID=constellation\n"
RELEASE_ROOT = signing.spki(signing.generate_key().public_key())
KUBECONFIG = b"""apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://10.42.0.1:6443"}}]
"""


@dataclass(kw_only=True)
class Node(InitServiceBase):
    """The one control plane. `die_before`: "policy" or "finished", once."""

    folder: Path
    socket: Path
    ca: LocalCloudCa
    image: bytes = IMAGE
    die_before: str = ""
    secrets_received: int = 0
    given: bool = False
    access: bytes = b""
    plan: init_pb2.ClusterPlan | None = None
    document: bytes = b""
    cluster_ca: CertificateAuthority = field(
        default_factory=lambda: CertificateAuthority.create(
            "kubernetes", now=NOW, lifetime=timedelta(days=365)
        )
    )
    join_key: ec.EllipticCurvePrivateKey = field(default_factory=signing.generate_key)
    variant: Variant = Variant.LOCAL_VTPM
    fetches: Path | None = None
    """Where artifacts go that it fetches, as the bootstrapper does; None: it fetches none."""
    other_nonces: tuple[bytes, ...] = ()
    """Of callers who are served by the same quote, before the one who asks."""
    answers: Callable[[verify_pb2.GetEvidenceReply], verify_pb2.GetEvidenceReply] | None = None
    """What somebody between makes of an answer to `verify`."""

    async def power_on(self, document: bytes) -> None:
        self.document = document
        log, extends = local_vtpm.firmware_log(self.image, LINE, OS_RELEASE)
        async with await Tpm.connect(self.socket) as tpm:
            await local_vtpm.manufacture(tpm, self.ca.certify)
            for number, digest in extends:
                await tpm.extend(number, digest)
        (self.folder / "firmware").write_bytes(log)
        await local_vtpm.measure_node_document(
            self.socket, document, firmware_log=self.folder / "firmware", event_log=self._log
        )

    @property
    def _log(self) -> Path:
        return self.folder / "log"

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
        return await self.quote(binding)

    async def quote(self, binding: Binding) -> Evidence:
        async with await Tpm.connect(self.socket) as tpm:
            return await local_vtpm.LocalVtpmAttester(tpm, self._log).attest(binding)

    async def give(self, cluster_id: bytes) -> None:
        async with await Tpm.connect(self.socket) as tpm:
            await local_vtpm.give_to_cluster(tpm, cluster_id, event_log=self._log)

    async def Init(self, stream: object) -> None:  # noqa: N802 - the name in init.proto
        with raise_status():
            await self._init(stream)

    async def _init(self, stream: object) -> None:
        document = parse_node_document(self.document)
        request = await stream.recv_message()  # type: ignore[attr-defined] # grpclib's Stream
        assert request is not None
        start = request.start
        verify_owner_channel(
            document.owner_public_key,
            start.owner_signature,
            exporter=atls_server.peer_of(stream).exporter(OWNER_CHANNEL_LABEL),  # type: ignore[arg-type] # grpclib's Stream
            cluster_id=document.cluster_id,
            purpose="init",
        )
        self.plan = start.plan
        if start.master_key:
            self.secrets_received += 1
            self.access = start.provider_access
            master = derive.MasterSecret(
                key=Secret(start.master_key), salt=Secret(start.master_salt)
            )
            assert derive.cluster_id(master) == document.cluster_id
            await self.give(document.cluster_id)
            self.given = True
        assert self.given
        await self.fetch(start.plan.artifact_list, tuple(start.artifact_sources))
        if self._dies("policy"):
            return
        needed = init_pb2.PolicyNeeded(join_public_key=signing.spki(self.join_key.public_key()))
        await stream.send_message(init_pb2.InitEvent(policy_needed=needed))  # type: ignore[attr-defined] # grpclib's Stream
        answer = await stream.recv_message()  # type: ignore[attr-defined] # grpclib's Stream
        verify_policy(
            SignedPolicy(policy=answer.policy.policy, signature=answer.policy.signature),
            owner_public_key=document.owner_public_key,
            cluster_id=document.cluster_id,
            minimum_serial=1,
        )
        if self._dies("finished"):
            return
        finished = init_pb2.Finished(
            kubeconfig=KUBECONFIG, cluster_ca_certificate=self.cluster_ca.certificate_pem
        )
        await stream.send_message(init_pb2.InitEvent(finished=finished))  # type: ignore[attr-defined] # grpclib's Stream

    async def fetch(self, listed: bytes, sources: tuple[str, ...]) -> None:
        """Have what a list names from these sources, through the bootstrapper's own shelf."""
        if self.fetches is None:
            return
        shelf = FetchedShelf(
            self.fetches,
            mounts=self.fetches / "mounted",
            sources=parse_sources(sources),
            door=door_to(),
        )
        await shelf.have(used_by_nodes(parse(listed)))

    def _dies(self, where: str) -> bool:
        if self.die_before != where:
            return False
        self.die_before = ""
        return True

    async def GetEvidence(self, stream: object) -> None:  # noqa: N802 - the name in verify.proto
        request = await stream.recv_message()  # type: ignore[attr-defined] # grpclib's Stream
        der = self.cluster_ca.certificate.public_bytes(Encoding.DER)
        batch = gather((*self.other_nonces, request.nonce))
        binding = verify_binding(
            nonces_root=batch.root, cluster_ca_digest=hashlib.sha256(der).digest()
        )
        evidence = await self.quote(binding)
        reply = verify_pb2.GetEvidenceReply(
            variant=self.variant,
            evidence=evidence.data,
            cluster_ca_certificate=self.cluster_ca.certificate_pem,
            node_name="control-plane-0",
            batch=verify_pb2.Batch(
                index=batch.places[-1].index, size=len(batch.places), path=batch.places[-1].path
            ),
        )
        if self.answers is not None:
            reply = self.answers(reply)
        await stream.send_message(reply)  # type: ignore[attr-defined] # grpclib's Stream


@dataclass(kw_only=True)
class Cloud:
    """An `Infrastructure` with the one node, which it powers on with the document it is given."""

    node: Node
    instance: Instance
    powered: bool = False
    destroyed: bool = False

    async def apply(self, desired: Desired, *, report: Report) -> InfrastructureState:
        if not self.powered:
            await self.node.power_on(desired.node_document)
            self.powered = True
        report(Progress(step="Machines", finished=True))
        found = await self.observe()
        assert found is not None
        return found

    async def observe(self) -> InfrastructureState | None:
        if not self.powered or self.destroyed:
            return None
        return InfrastructureState(
            uid="test",
            endpoint="10.42.0.1:6443",
            user_endpoint="127.0.0.1:6443",
            api_sans=("127.0.0.1",),
            instances=(self.instance,),
            trust_roots=(self.node.ca.root,),
        )

    async def destroy(self, *, report: Report) -> None:
        del report
        self.destroyed = True

    async def console(self, instance_id: str) -> bytes:
        return instance_id.encode()


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """`Supplies` that are there already."""

    cache: Path

    async def artifacts(self, config: Config, *, report: Report) -> ArtifactList:
        report(Progress(step="Kubernetes", finished=True))
        kubectl, services = self._put(b"kubectl"), self._put(b"services")
        empty = ArtifactList(kubernetes_version=config.kubernetes_version, artifacts=())
        return empty.with_artifacts(
            Artifact(name="kubectl", kind=ArtifactKind.BINARY, sha256=kubectl, size_bytes=7),
            Artifact(name="services", kind=ArtifactKind.ARCHIVE, sha256=services, size_bytes=8),
        )

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self.cache / "sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    async def release_files(
        self, release: Release, config: Config, *, kubernetes: str, report: Report
    ) -> Path:
        del config, report
        raise AssertionError(f"nobody rolls out {release.version} with {kubernetes}")

    async def node_image(self, *, report: Report) -> NodeImage:
        report(Progress(step="Node image", finished=True))
        _, extends = local_vtpm.firmware_log(IMAGE, LINE, OS_RELEASE)
        predicted = local_vtpm.predicted_pcrs(extends)
        release = AcceptedRelease(
            name="0.1.0",
            not_before=0,
            not_after=None,
            image_digest=IMAGE,
            reference={n: (v,) for n, v in predicted.items()},
        )
        return NodeImage(path=Path("/image"), release=release, release_root=RELEASE_ROOT)


@dataclass(kw_only=True)
class OwnerWorld:
    """Everything that a test changes and looks at."""

    node: Node
    cloud: Cloud
    workspace: Workspace
    progress: list[Progress] = field(default_factory=list)
    ready: bool = True
    owned: tuple[str, ...] = ()
    workers: NodeGroup | None = None
    """A second group in the configuration; no machine of it is ever there."""

    def context(self, *, abandon: bool = False) -> Context:
        async def list_nodes(kubeconfig: Path) -> tuple[KubernetesNode, ...]:
            assert kubeconfig.exists()
            return (
                KubernetesNode(
                    name="control-plane-0",
                    role="control-plane",
                    ready=self.ready,
                    version="v1.36.2",
                    address="10.42.1.10",
                    reason="" if self.ready else "starting",
                ),
            )

        groups = {"control_plane_default": NodeGroup(role=Role.CONTROL_PLANE, size=1)}
        if self.workers is not None:
            groups["worker_default"] = self.workers
        return Context(
            workspace=self.workspace,
            config=Config(name="test", node_groups=groups),
            supplies=Shelf(cache=self.workspace.folder / "cache"),
            infrastructure=lambda _: self.cloud,
            owned=lambda: self.owned,
            list_nodes=list_nodes,
            now=lambda: NOW,
            report=self.progress.append,
            wait_s=2.0,
            abandon=abandon,
        )


@contextlib.asynccontextmanager
async def serving(node: Node) -> AsyncIterator[tuple[int, int]]:
    """Run a node's init server and its verification service; gives their ports."""
    init = await atls_server.serve(
        [node],
        host="127.0.0.1",
        port=0,
        purpose="init-server",
        attester=node,
        appraisers={"": _never},
        limits=USUAL,
    )
    verification = Server([_Verification(node)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        await verification.start(sock=listening.dup())
    try:
        yield init.port, port
    finally:
        verification.close()
        await verification.wait_closed()
        init.close()


@contextlib.asynccontextmanager
async def owner_world(folder: Path, *, image: bytes = IMAGE) -> AsyncIterator[OwnerWorld]:
    """Run the node's TPM, its init server and its verification service."""
    async with swtpm(folder / "tpm") as socket:
        node = Node(folder=folder, socket=socket, ca=LocalCloudCa(), image=image)
        async with serving(node) as (init, verification):
            instance = Instance(
                instance_id="control-plane-0",
                group="control_plane_default",
                role=Role.CONTROL_PLANE,
                address="10.42.1.10",
                state="running",
                init_endpoint=f"127.0.0.1:{init}",
                recovery_endpoint="127.0.0.1:1",
                verify_endpoint=f"127.0.0.1:{verification}",
            )
            yield OwnerWorld(
                node=node,
                cloud=Cloud(node=node, instance=instance),
                workspace=Workspace(folder=folder / "workspace"),
            )


class _Verification(VerificationServiceBase):
    def __init__(self, node: Node) -> None:
        self._node = node

    async def GetEvidence(self, stream: object) -> None:  # noqa: N802 - the name in verify.proto
        await self._node.GetEvidence(stream)


def _never(evidence: object, binding: object) -> AttestationResult:
    raise AssertionError(f"{evidence} {binding}")
