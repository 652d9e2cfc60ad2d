"""A new cluster policy goes to one of three JoinServices and is obeyed by all: real aTLS and TLS.

Three control planes in one process, each with its own TPM, disk and copy of one log, at 127.0.0.1
to 127.0.0.3. The owner is the engine's own function.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from constellation.atls import client
from constellation.atls import server as atls_server
from constellation.atls.limits import USUAL
from constellation.attestation.model import AttestationResult
from constellation.base import clock
from constellation.base.errors import Conflict, FormatError, Rejected, Unavailable, Untrusted
from constellation.cluster import policy_hand_over
from constellation.cluster.context import Context
from constellation.cluster.secrets import make_secrets
from constellation.config.schema import Config, NodeGroup
from constellation.config.state import State, read_state
from constellation.config.workspace import Workspace
from constellation.crypto.signing import generate_key
from constellation.kube.join_log import Entry, Kind
from constellation.kube.membership import NodeRole
from constellation.kube.node_certificates import certify_service
from constellation.providers.protocols import InfrastructureState, Instance, Role
from constellation.rpc.errors import raise_ours
from constellation.rpc.mutual_tls import ServiceTls, channel
from constellation.rpc.stubs import join_pb2, policy_pb2
from constellation.rpc.stubs.join_grpc import PeerServiceStub
from constellation.rpc.stubs.policy_grpc import PolicyServiceBase, PolicyServiceStub
from constellation.services.joinservice import server as server_module
from constellation.services.joinservice.judge import fresh_node
from constellation.services.joinservice.server import JoinServer, Ports
from constellation.trust.channel_proof import (
    JOIN_CHANNEL_LABEL,
    OWNER_CHANNEL_LABEL,
    prove_join_channel,
    prove_owner_channel,
)
from constellation.trust.cluster_policy import parse_policy, sign_policy
from constellation.trust.node_document import dump_node_document
from tests.fakes.cluster_machines import CA, IMAGE, Cluster, Node, machine
from tests.fakes.join_world import (
    Keys,
    Provider,
    SharedLog,
    World,
    ledger_of,
    write_another,
    write_control_plane,
)
from tests.fakes.tpm import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from grpclib.server import Stream

    from constellation.attestation.model import Binding, Evidence
    from constellation.crypto.signing import ec
    from constellation.services.joinservice.ledger import Ledger
    from constellation.services.joinservice.secrets_on_disk import NodeFiles
    from constellation.trust.channel_proof import OwnerPurpose
    from constellation.trust.cluster_policy import SignedPolicy

NEXT = hashlib.sha256(b"the next node image").digest()


@dataclass(kw_only=True)
class Plane:
    """One control plane: its disk, its TPM, and its JoinService while it runs."""

    name: str
    address: str
    files: NodeFiles
    ledger: Ledger
    on: Node
    peer_port: int
    ports: Ports = field(default_factory=lambda: Ports(join=0, peers=0, policy=0))
    task: asyncio.Task[None] | None = None

    @property
    def serial(self) -> int:
        return self.files.kept_policy().verified().serial

    async def start(self) -> None:
        started: asyncio.Queue[Ports] = asyncio.Queue()
        kept = self.files.kept_policy()
        server = JoinServer(
            files=self.files,
            kept=kept,
            ledger=self.ledger,
            attester=self.on,
            appraise=fresh_node(kept),
            provider=Provider(instances=()),
            keys=Keys(),
            world=World(),
            own_name=self.name,
            host=self.address,
            join_port=0,
            peer_port=self.peer_port,
            policy_port=self.ports.policy,
        )
        self.task = asyncio.create_task(server.run(started=started.put_nowait))
        async with asyncio.timeout(5):
            self.ports = await started.get()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def accepts(self, node: Node) -> bool:
        """Say whether the JoinService lets a fresh machine in."""
        try:
            opened = await client.connect(
                self.address,
                self.ports.join,
                purpose="join-client",
                server_purpose="join-server",
                attester=node,
                appraise=anybody,
                deadline_s=10,
            )
        except Rejected:
            return False
        opened.close()
        return True


def anybody(evidence: Evidence, _binding: Binding) -> AttestationResult:
    return AttestationResult(
        variant=evidence.variant, attester_id=bytes(32), claims={}, unchecked=(), warnings=()
    )


@dataclass(kw_only=True)
class Owned:
    """The cluster as its owner has it; `wait_s` bounds a hand-over."""

    cluster: Cluster
    planes: tuple[Plane, ...]
    workspace: Workspace
    state: State
    wait_s: float = 5.0

    @property
    def context(self) -> Context:
        groups = {"control_plane_default": NodeGroup(role=Role.CONTROL_PLANE, size=3)}
        return Context(
            workspace=self.workspace,
            config=Config(name="test", node_groups=groups),
            supplies=None,  # type: ignore[arg-type] # nothing is made here
            infrastructure=None,  # type: ignore[arg-type] # nothing is made here
            owned=tuple,
            list_nodes=None,  # type: ignore[arg-type] # Kubernetes is not asked
            now=lambda: NOW,
            report=lambda _: None,
            wait_s=self.wait_s,
        )

    async def hand_over(self, signed: SignedPolicy) -> None:
        try:
            self.state = await policy_hand_over.hand_over(self.context, self.state, signed)
        except Unavailable:
            kept = read_state(self.workspace.state)
            assert kept is not None
            self.state = kept
            raise

    async def reports(self) -> dict[str, int]:
        obeyed = await policy_hand_over.obeyed_policies(self.context, self.state)
        return {o.node_name: o.serial for o in obeyed}

    def reach(self, *endpoints: str) -> None:
        """Let the workstation know control planes by these endpoints only."""
        instances = tuple(
            Instance(
                instance_id=f"cp-{i}",
                group="control_plane_default",
                role=Role.CONTROL_PLANE,
                address=endpoint.partition(":")[0],
                state="running",
                policy_endpoint=endpoint,
            )
            for i, endpoint in enumerate(endpoints)
        )
        machines = InfrastructureState(
            uid="test",
            endpoint="10.42.0.1:6443",
            user_endpoint="127.0.0.1:6443",
            api_sans=(),
            instances=instances,
            trust_roots=(CA.root,),
        )
        self.state = dataclasses.replace(self.state, infrastructure=machines)


def endpoint(plane: Plane) -> str:
    return f"{plane.address}:{plane.ports.policy}"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


async def write_planes(
    folder: Path, cluster: Cluster, nodes: list[Node], log: SharedLog
) -> tuple[Plane, ...]:
    first = write_control_plane(
        folder / "cp0", cluster=cluster, attester_id=await nodes[0].attester_id()
    )
    names = [f"control-plane-default-{i}" for i in range(3)]
    ledger = ledger_of(first, log, writer=names[0])
    second = await write_another(folder / "cp1", first, ledger, index=1)
    disks = (first, second, await write_another(folder / "cp2", first, ledger, index=2))
    port = free_port()
    planes = [
        Plane(
            name=name,
            address=f"127.0.0.{i + 1}",
            files=files,
            ledger=ledger if i == 0 else ledger_of(files, log, writer=name),
            on=nodes[i],
            peer_port=port,
        )
        for i, (name, files) in enumerate(zip(names, disks, strict=True))
    ]
    return tuple(planes)


@pytest.fixture
async def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owned]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(server_module, "_EXCHANGE_EVERY_S", 0.2)
    workspace = Workspace(folder=tmp_path / "workspace")
    workspace.folder.mkdir()
    secrets = make_secrets(workspace)
    cluster = Cluster(name="owned", owner=secrets.owner_key, owners=secrets.master)
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(machine(tmp_path / f"tpm{i}", cluster=cluster))
            for i in range(3)
        ]
        planes = await write_planes(tmp_path, cluster, nodes, SharedLog())
        for plane in planes:
            await plane.start()
            stack.push_async_callback(plane.stop)
        state = State(
            version=1,
            name="test",
            uid="test",
            cluster_id=cluster.document.cluster_id,
            node_document=dump_node_document(cluster.document),
            kubernetes_version="v1.36.2",
            policy=planes[0].files.kept_policy().signed(),
            policy_serial=1,
        )
        one = Owned(cluster=cluster, planes=planes, workspace=workspace, state=state)
        one.reach(endpoint(planes[1]))
        yield one


async def test_a_policy_that_is_given_to_one_is_obeyed_by_all_at_once(
    owned: Owned, tmp_path: Path
) -> None:
    names = [p.name for p in owned.planes]
    assert await owned.reports() == dict.fromkeys(names, 1)
    both = owned.cluster.policy(serial=2, images=(IMAGE, NEXT))
    async with (
        machine(tmp_path / "old", cluster=owned.cluster, given=False) as old,
        machine(tmp_path / "new", cluster=owned.cluster, given=False, image=NEXT) as new,
    ):
        assert [await p.accepts(new) for p in owned.planes] == [False] * 3
        await owned.hand_over(both)
        assert [p.serial for p in owned.planes] == [2, 2, 2]
        assert [await p.accepts(new) for p in owned.planes] == [True] * 3
        assert [await p.accepts(old) for p in owned.planes] == [True] * 3
    assert await owned.reports() == dict.fromkeys(names, 2)
    kept = read_state(owned.workspace.state)
    assert kept is not None
    assert (kept.policy_serial, kept.policy) == (2, both)
    await owned.hand_over(both)  # again: nothing is left to do


async def test_lower_and_different_policies_are_refused_by_owner_and_node(owned: Owned) -> None:
    two = owned.cluster.policy(serial=2, images=(IMAGE, NEXT))
    await owned.hand_over(two)
    with pytest.raises(Untrusted, match="serial 1"):
        await owned.hand_over(owned.cluster.policy(serial=1))
    with pytest.raises(Conflict, match="another one with serial 2"):
        await owned.hand_over(owned.cluster.policy(serial=2))
    # a workstation that has forgotten what it handed over: the nodes refuse by themselves
    first = owned.cluster.policy(serial=1)
    owned.state = dataclasses.replace(owned.state, policy=first, policy_serial=1)
    with pytest.raises(Untrusted, match="serial 1"):
        await owned.hand_over(first)
    owned.state = dataclasses.replace(owned.state, policy=first, policy_serial=1)
    with pytest.raises(Conflict, match="another one with serial 2"):
        await owned.hand_over(owned.cluster.policy(serial=2))
    assert [p.serial for p in owned.planes] == [2, 2, 2]
    await owned.hand_over(owned.cluster.policy(serial=3))
    assert [p.serial for p in owned.planes] == [3, 3, 3]


async def test_a_join_service_that_was_off_catches_up_at_its_next_exchange(owned: Owned) -> None:
    away, owned.wait_s = owned.planes[2], 0.0
    await away.stop()
    two = owned.cluster.policy(serial=2, images=(IMAGE, NEXT))
    with pytest.raises(Unavailable, match="not obeyed yet by control-plane-default-2"):
        await owned.hand_over(two)
    assert await owned.reports() == {
        "control-plane-default-0": 2,
        "control-plane-default-1": 2,
        "control-plane-default-2": 0,
    }
    assert away.serial == 1
    await away.start()
    for _ in range(100):
        if away.serial == 2:
            break
        await asyncio.sleep(0.05)
    assert away.serial == 2
    await owned.hand_over(two)


async def test_only_what_the_owner_signed_travels(owned: Owned) -> None:
    forged = sign_policy(parse_policy(owned.cluster.policy(serial=9).policy), generate_key())
    with pytest.raises(Untrusted):
        await owned.hand_over(forged)
    true = owned.cluster.policy(serial=2, images=(IMAGE, NEXT))
    sender, receiver = owned.planes[0], owned.planes[2]
    with pytest.raises(Untrusted):
        await exchange(sender.files.service_tls(), receiver, forged)
    other = Cluster(name="x", owner=owned.cluster.owner, owners=owned.cluster.master)
    with pytest.raises(Rejected, match="another join key"):
        await exchange(sender.files.service_tls(), receiver, other.policy(serial=2))
    assert receiver.serial == 1
    assert (await exchange(sender.files.service_tls(), receiver, true)).serial == 2


async def test_a_worker_exchanges_no_policies(owned: Owned, tmp_path: Path) -> None:
    sender, receiver = owned.planes[0], owned.planes[2]
    member = dataclasses.replace(
        sender.ledger.membership.nodes[0],
        name="worker-default-0",
        role=NodeRole.WORKER,
        group="worker-default",
        address="127.0.0.9",
        mesh_address="10.43.0.99",
        pod_cidr="10.244.99.0/24",
        disk_uuid=b"w" * 16,
        mesh_public_key=b"w" * 32,
        joined=sender.ledger.membership.sequence + 1,
    )
    reserved = Entry(kind=Kind.RESERVED, time=1, member=member, expires_at=2_000_000_000)
    await sender.ledger.write(lambda _: reserved, now=1)
    await receiver.ledger.follow(now=1)
    certificate = certify_service(
        member,
        services_ca=sender.files.services_ca(),
        cluster_id=owned.cluster.document.cluster_id,
        now=datetime.now(UTC),
    )
    (tmp_path / "worker.crt").write_bytes(certificate)
    theirs = dataclasses.replace(sender.files.service_tls(), certificate=tmp_path / "worker.crt")
    two = owned.cluster.policy(serial=2)
    with pytest.raises(Rejected, match="expected a control plane"):
        await exchange(theirs, receiver, two)
    assert (await exchange(sender.files.service_tls(), receiver, two)).serial == 2


async def exchange(tls: ServiceTls, receiver: Plane, signed: SignedPolicy) -> join_pb2.PolicyStand:
    stand = join_pb2.PolicyStand(
        serial=parse_policy(signed.policy).serial,
        policy=signed.policy,
        policy_signature=signed.signature,
    )
    peer = channel(receiver.address, receiver.peer_port, tls=tls)
    try:
        with raise_ours("PeerService"):
            return await PeerServiceStub(peer).ExchangePolicy(stand, timeout=5)
    finally:
        peer.close()


async def test_whoever_is_not_the_owner_hands_in_nothing(owned: Owned) -> None:
    plane, two = owned.planes[0], owned.cluster.policy(serial=2)

    async def hand_in(proof: Callable[[bytes], bytes]) -> int:
        opened = await client.connect(
            plane.address,
            plane.ports.policy,
            purpose="policy-client",
            server_purpose="policy-server",
            attester=None,
            appraise=anybody,
            deadline_s=10,
        )
        request = policy_pb2.HandOverRequest(
            owner_signature=proof(opened.exporter(OWNER_CHANNEL_LABEL)),
            policy=two.policy,
            policy_signature=two.signature,
        )
        try:
            with raise_ours("node"):
                reply = await PolicyServiceStub(opened.grpc).HandOver(request, timeout=10)
        finally:
            opened.close()
        return len(reply.control_planes)

    def sign(key: ec.EllipticCurvePrivateKey, exporter: bytes, purpose: OwnerPurpose) -> bytes:
        cluster_id = owned.cluster.document.cluster_id
        return prove_owner_channel(key, exporter=exporter, cluster_id=cluster_id, purpose=purpose)

    owner = owned.cluster.owner
    for false_proof in (
        lambda _: b"",
        lambda exporter: sign(generate_key(), exporter, "policy"),
        lambda exporter: sign(owner, exporter, "recover"),
        lambda _: sign(owner, bytes(32), "policy"),
    ):
        with pytest.raises((Untrusted, FormatError)):
            await hand_in(false_proof)
        assert plane.serial == 1
    assert await hand_in(lambda exporter: sign(owner, exporter, "policy")) == 3


class FalseReporter(PolicyServiceBase):
    """A genuine node of the cluster that says what the owner wants to hear."""

    def __init__(self, cluster: Cluster, signed: SignedPolicy) -> None:
        self._cluster, self._signed = cluster, signed

    async def HandOver(  # noqa: N802 - the name in policy.proto
        self, stream: Stream[policy_pb2.HandOverRequest, policy_pb2.PolicyReport]
    ) -> None:
        await stream.recv_message()
        proof = prove_join_channel(
            generate_key(),
            exporter=atls_server.peer_of(stream).exporter(JOIN_CHANNEL_LABEL),
            cluster_id=self._cluster.document.cluster_id,
        )
        digest = hashlib.sha256(self._signed.policy).digest()
        obeyed = policy_pb2.Obeyed(node_name="control-plane-default-0", serial=2, digest=digest)
        await stream.send_message(
            policy_pb2.PolicyReport(channel_signature=proof, control_planes=[obeyed])
        )

    async def Report(self, stream: Stream[object, object]) -> None:  # noqa: N802 - the name in policy.proto
        raise NotImplementedError


async def test_a_report_without_the_join_key_is_not_believed(owned: Owned, tmp_path: Path) -> None:
    two = owned.cluster.policy(serial=2, images=(IMAGE, NEXT))

    async def hand_over_to(node: Node) -> None:
        listening = await atls_server.serve(
            [FalseReporter(owned.cluster, two)],
            host="127.0.0.1",
            port=0,
            purpose="policy-server",
            attester=node,
            appraisers={"": anybody},
            limits=USUAL,
        )
        owned.reach(f"127.0.0.1:{listening.port}")
        try:
            await owned.hand_over(two)
        finally:
            listening.close()
            await listening.wait_closed()

    async with machine(tmp_path / "worker", cluster=owned.cluster) as worker:
        with pytest.raises(Untrusted):
            await hand_over_to(worker)
    async with machine(tmp_path / "fresh", cluster=owned.cluster, given=False) as fresh:
        with pytest.raises(Rejected, match="pcr15"):
            await hand_over_to(fresh)
    assert [p.serial for p in owned.planes] == [1, 1, 1]
    owned.reach("127.0.0.1:1", *map(endpoint, owned.planes))
    await owned.hand_over(two)
    assert [p.serial for p in owned.planes] == [2, 2, 2]


async def test_a_policy_that_refuses_the_control_planes_is_not_handed_over(owned: Owned) -> None:
    with pytest.raises(Rejected, match="pcr4"):
        await owned.hand_over(owned.cluster.policy(serial=2, images=(NEXT,)))
    assert [p.serial for p in owned.planes] == [1, 1, 1]
