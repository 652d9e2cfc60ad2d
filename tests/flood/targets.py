"""Each server that listens before it knows its peer: how its program serves it, and who is honest.

A target is made in one process and served in a child of it, so both know the keys. The handlers are
the programs' own, with the programs' own limits; what lies behind them (TPM, Kubernetes) is a fake.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from aiohttp import ClientSession, web

from constellation.atls import client, server
from constellation.atls.grpc_bounds import (
    MAX_MESSAGE_BYTES,
    MAX_UNREAD_OPEN_BYTES,
    BoundedChannel,
    LocalServer,
    OpenServer,
)
from constellation.atls.limits import USUAL
from constellation.base.errors import Unavailable
from constellation.providers.local.daemon import metadata_server
from constellation.providers.local.daemon.cloud import Cloud
from constellation.providers.local.daemon.layout import Layout
from constellation.providers.local.daemon.records import CloudRecord, NodeRecord
from constellation.providers.local.daemon.service import LocalCloud
from constellation.providers.protocols import Role
from constellation.rpc import mutual_tls
from constellation.rpc.agent_client import AgentClient, agent_socket
from constellation.rpc.errors import raise_ours
from constellation.rpc.stubs import daemon_pb2, join_pb2, policy_pb2
from constellation.rpc.stubs.daemon_grpc import LocalCloudStub
from constellation.rpc.stubs.policy_grpc import PolicyServiceStub
from constellation.rpc.stubs.verify_grpc import VerificationServiceStub
from constellation.rpc.stubs.verify_pb2 import GetEvidenceRequest
from constellation.services.agent.allowed import DOORS
from constellation.services.agent.server import serve as serve_agent
from constellation.services.verificationservice.answers import CALLS, CONNECTIONS
from constellation.services.verificationservice.answers import Answers as VerifyAnswers
from constellation.services.verificationservice.http import HttpVerification
from constellation.services.verificationservice.server import MAX_REQUEST_BYTES, Verification
from constellation.trust.channel_proof import OWNER_CHANNEL_LABEL, prove_owner_channel
from tests.fakes.cluster_machines import OURS
from tests.fakes.join_world import (
    Chip,
    Provider,
    SharedLog,
    World,
    appraise,
    channel_to,
    ledger_of,
    server_of,
    write_control_plane,
)
from tests.fakes.machines import Maker
from tests.flood import attackers
from tests.scenarios import test_attack_false_cli as false_cli
from tests.scenarios.test_attack_service_floods import Answers, ask_tls, identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constellation.attestation.model import Binding, Evidence
    from constellation.services.joinservice.server import Ports
    from tests.flood.attackers import Attack

__all__ = ["TARGETS", "Target"]

_HOST = "127.0.0.1"


class Target(Protocol):
    """One server under flood."""

    attacks: tuple[Attack, ...]

    async def serve(self) -> str:
        """Listen, in the child; gives host:port or the path of a socket."""
        ...

    async def honest(self, where: str) -> None:
        """Be served as an honest client is; anything raised means that it was not."""
        ...


class _Node:
    """A waiting node: the init server, or the recovery server of a control plane."""

    attacks = attackers.ATTESTED

    def __init__(self, service: str) -> None:
        self._service, self._node = service, false_cli.Node()

    async def serve(self) -> str:
        node = self._node
        handler = node.init_server() if self._service == "init" else node.recovery()
        listening = await server.serve(
            [handler],
            host=_HOST,
            port=0,
            purpose=f"{self._service}-server",
            attester=node.machine,
            appraisers={"": false_cli.nobody_attests},
            limits=USUAL,
        )
        return f"{_HOST}:{listening.port}"

    async def honest(self, where: str) -> None:
        self._node.ports[self._service] = _port(where)
        if self._service == "init":
            assert await false_cli.init(self._node) == b"kubeconfig"
        else:
            assert await false_cli.recover(self._node) == "control-plane-default-0"


class _Join:
    """A control plane's JoinService: its port for nodes, or the one for the owner."""

    attacks = attackers.ATTESTED

    def __init__(self, folder: Path, *, policy: bool) -> None:
        self._files = write_control_plane(folder, cluster=OURS)
        self._policy = policy

    async def serve(self) -> str:
        ledger = ledger_of(self._files, SharedLog())
        service = server_of(self._files, ledger, Provider(instances=()), World())
        started: asyncio.Queue[Ports] = asyncio.Queue()
        self._task = asyncio.create_task(service.run(started=started.put_nowait))
        ports = await started.get()
        return f"{_HOST}:{ports.policy if self._policy else ports.join}"

    async def honest(self, where: str) -> None:
        if self._policy:
            await self._owner(where)
            return
        async with channel_to(_port(where), Chip(name="w-0"), purpose="join-client") as (_, stub):
            with raise_ours("JoinService"):
                shown = await stub.Introduce(join_pb2.IntroduceRequest(), timeout=10)
        assert shown.policy == self._files.kept_policy().signed().policy

    async def _owner(self, where: str) -> None:
        channel = await client.connect(
            _HOST,
            _port(where),
            purpose="policy-client",
            server_purpose="policy-server",
            attester=None,
            appraise=appraise,
            deadline_s=10,
        )
        with contextlib.closing(channel), raise_ours("JoinService"):
            signature = prove_owner_channel(
                OURS.owner,
                exporter=channel.exporter(OWNER_CHANNEL_LABEL),
                cluster_id=OURS.document.cluster_id,
                purpose="policy",
            )
            request = policy_pb2.ReportRequest(owner_signature=signature)
            report = await PolicyServiceStub(channel.grpc).Report(request, timeout=10)
        assert [c.serial for c in report.control_planes] == [1]


class _Verification:
    """The VerificationService of a node for everybody: plain gRPC, or HTTP."""

    def __init__(self, folder: Path, *, http: bool) -> None:
        self.attacks = attackers.HTTP if http else attackers.GRPC
        self._http = http
        self._machine = Maker().machine(pcr4=bytes(32))
        self._ca = folder / "ca.crt"
        write_control_plane(folder / "node")
        self._ca.write_bytes((folder / "node/pki/ca.crt").read_bytes())

    async def serve(self) -> str:
        answers = VerifyAnswers(self._machine, cluster_ca=self._ca, node_name="w-0", limits=CALLS)
        if self._http:
            self._on = HttpVerification(answers)
            await self._on.start(_HOST, 0)
            return f"{_HOST}:{self._on.port}"
        opened = OpenServer(
            [Verification(answers)],
            limits=CONNECTIONS,
            life_s=CONNECTIONS.handshake_s,
            max_message_bytes=MAX_REQUEST_BYTES,
            max_unread_bytes=MAX_UNREAD_OPEN_BYTES,
        )
        await opened.start(_HOST, 0)
        return f"{_HOST}:{opened._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def honest(self, where: str) -> None:
        if self._http:
            url = f"http://{where}/v1/evidence?nonce={bytes(32).hex()}"
            async with ClientSession() as session, session.get(url) as answer:
                assert (await answer.json())["node_name"] == "w-0"
            return
        with contextlib.closing(BoundedChannel(_HOST, _port(where))) as channel:
            stub = VerificationServiceStub(channel)
            with raise_ours("node"):
                reply = await stub.GetEvidence(GetEvidenceRequest(nonce=bytes(32)), timeout=10)
        assert reply.node_name == "w-0"


class _Service:
    """A port of mutual TLS, as KeyService and PeerService have."""

    attacks = attackers.ATTESTED

    def __init__(self, folder: Path) -> None:
        self._tls = identity(folder)

    async def serve(self) -> str:
        self._on = await mutual_tls.serve([Answers()], host=_HOST, port=0, tls=self._tls)
        return f"{_HOST}:{self._on.port}"

    async def honest(self, where: str) -> None:
        await ask_tls(_port(where), self._tls)


class _AgentMachine:
    """The machine behind the agent; it quotes with a made-up chip."""

    def __init__(self) -> None:
        self._chip = Maker().machine(pcr4=bytes(32))
        self.variant = self._chip.variant

    async def attester_id(self) -> bytes:
        return bytes(32)

    async def attest(self, binding: Binding) -> Evidence:
        return self._chip.quote(binding)

    async def is_given(self) -> bool:
        return False

    async def give(self, cluster_id: bytes) -> None:
        raise Unavailable(f"{len(cluster_id)} bytes are not given here")


class _Agent:
    """The attestation agent's socket for VerificationService."""

    attacks = attackers.LOCAL

    def __init__(self, folder: Path) -> None:
        self._folder, self._machine = folder, _AgentMachine()

    async def serve(self) -> str:
        self._servers = await serve_agent(self._machine, doors=DOORS, folder=self._folder)
        return str(agent_socket("verification", folder=self._folder))

    async def honest(self, where: str) -> None:
        assert where.endswith("verification/agent.sock")
        agent = await AgentClient.connect(agent_socket("verification", folder=self._folder))
        with contextlib.closing(agent):
            await agent.attest_verify(nonces_root=bytes(32), cluster_ca_digest=bytes(32))


class _Daemon:
    """The local cloud's daemon on its own socket."""

    attacks = attackers.LOCAL

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "daemon.sock"

    async def serve(self) -> str:
        async def destroy(*_: object) -> None:
            raise Unavailable("nothing is destroyed here")

        cloud = Cloud(Layout.of("flood"), tools_root=self._socket.parent)
        self._on = LocalServer([LocalCloud(cloud, destroy)], max_message_bytes=MAX_MESSAGE_BYTES)
        await self._on.start(path=str(self._socket))
        return str(self._socket)

    async def honest(self, where: str) -> None:
        with contextlib.closing(BoundedChannel(path=where)) as channel, raise_ours("daemon"):
            cloud = await LocalCloudStub(channel).Observe(daemon_pb2.ObserveRequest(), timeout=10)
        assert cloud.id == "flood"


class _Metadata:
    """The local cloud's metadata, which nodes read before anything else."""

    attacks = attackers.HTTP

    def __init__(self) -> None:
        node = NodeRecord(
            instance_id="w-0", index=0, group="workers", role=Role.WORKER, address=_HOST
        )
        self._record = CloudRecord(id="flood", address=_HOST, nodes=(node,))

    async def serve(self) -> str:
        app = metadata_server.application(lambda: self._record, lambda _: "running")
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, 0)
        await site.start()
        return f"{_HOST}:{self._runner.addresses[0][1]}"

    async def honest(self, where: str) -> None:
        async with ClientSession() as session, session.get(f"http://{where}/v1/self") as answer:
            assert (await answer.json())["instance_id"] == "w-0"


def _port(where: str) -> int:
    return int(where.rpartition(":")[2])


TARGETS: dict[str, Callable[[Path], Target]] = {
    "init (9000)": lambda _: _Node("init"),
    "recovery (9999)": lambda _: _Node("recover"),
    "join (30090)": lambda folder: _Join(folder, policy=False),
    "policy (30091)": lambda folder: _Join(folder, policy=True),
    "verification (30081)": lambda folder: _Verification(folder, http=False),
    "verification by HTTP (30080)": lambda folder: _Verification(folder, http=True),
    "key and peer services (9090, 9091)": _Service,
    "attestation agent (socket)": _Agent,
    "local cloud's daemon (socket)": _Daemon,
    "local cloud's metadata (80)": lambda _: _Metadata(),
}
